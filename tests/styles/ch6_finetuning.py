"""Réponses justes du chapitre 6, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

# --- pool_last_token ------------------------------------------------------------------------------------------------


def pool_loops(hidden, attention_mask):
    out = []
    for row, mask in zip(hidden, attention_mask, strict=True):
        real = [t for t in range(len(mask)) if mask[t] == 1]
        if not real:
            raise ValueError("ligne vide")
        out.append(row[real[-1]])
    return torch.stack(out)


def pool_gather(hidden, attention_mask):
    if (attention_mask.sum(1) == 0).any():
        raise ValueError("ligne vide")
    last = (attention_mask * torch.arange(attention_mask.size(1), device=hidden.device)).argmax(1)
    return hidden.gather(1, last[:, None, None].expand(-1, 1, hidden.size(2))).squeeze(1)


def pool_flip(hidden, attention_mask):
    if torch.any(attention_mask.sum(dim=-1) < 1):
        raise ValueError("ligne vide")
    back = attention_mask.flip(1).argmax(1)
    return hidden[range(hidden.shape[0]), hidden.shape[1] - 1 - back]


def pool_start_and_length(hidden, attention_mask):
    """Début de la phrase plus sa longueur : vaut pour les deux côtés."""
    length = attention_mask.sum(1)
    if length.min() == 0:
        raise ValueError("ligne vide")
    last = attention_mask.int().argmax(1) + length - 1
    return torch.cat([hidden[b : b + 1, t] for b, t in enumerate(last.tolist())])


def pool_argmin(hidden, attention_mask):
    """Une ancienne façon : juste avant le premier 0 ; l'indice −1 sauve les lignes pleines ou à gauche."""
    if not attention_mask.any(1).all():
        raise ValueError("ligne vide")
    return hidden[torch.arange(hidden.shape[0]), attention_mask.argmin(1) - 1]


def pool_numpy(hidden, attention_mask):
    mask = attention_mask.numpy()
    if (mask.max(axis=1) == 0).any():
        raise ValueError("ligne vide")
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    return torch.from_numpy(hidden.numpy()[np.arange(len(mask)), last])


# --- train_head -----------------------------------------------------------------------------------------------------


def head_autograd(features, labels, n_classes, lr=0.1, steps=100):
    if steps < 0:
        raise ValueError("pas négatif")
    head = torch.nn.Linear(features.shape[1], n_classes).to(features)
    torch.nn.init.zeros_(head.weight)
    torch.nn.init.zeros_(head.bias)
    optimizer = torch.optim.SGD(head.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(head(features), labels).backward()
        optimizer.step()
    return head.weight.detach(), head.bias.detach()


def head_grad_function(features, labels, n_classes, lr=0.1, steps=100):
    if not steps >= 0:
        raise ValueError("pas négatif")
    w = features.new_zeros(n_classes, features.shape[1]).requires_grad_()
    b = features.new_zeros(n_classes).requires_grad_()
    for _ in range(steps):
        loss = -(features @ w.T + b).log_softmax(1)[torch.arange(len(labels)), labels].mean()
        gw, gb = torch.autograd.grad(loss, (w, b))
        w, b = (w - lr * gw).detach().requires_grad_(), (b - lr * gb).detach().requires_grad_()
    return w, b


def head_bias_in_features(features, labels, n_classes, lr=0.1, steps=100):
    """Le biais est le poids d'une composante toujours égale à 1 ; tout en float64."""
    if steps < 0:
        raise ValueError("pas négatif")
    x = torch.cat([features.double(), torch.ones_like(features[:, :1]).double()], dim=1)
    w = x.new_zeros(n_classes, x.shape[1])
    y = torch.eye(n_classes).to(x)[labels]
    for _ in range(steps):
        w -= lr * ((x @ w.T).softmax(1) - y).T @ x / x.shape[0]
    return w[:, :-1].to(features.dtype), w[:, -1].to(features.dtype)


def head_loops(features, labels, n_classes, lr=0.1, steps=100):
    if steps < 0:
        raise ValueError("pas négatif")
    w = features.new_zeros(n_classes, features.shape[1])
    b = features.new_zeros(n_classes)
    for _ in range(steps):
        gw, gb = torch.zeros_like(w), torch.zeros_like(b)
        for x, y in zip(features, labels.tolist(), strict=True):
            p = torch.softmax(w @ x + b, 0)
            for c in range(n_classes):
                g = p[c] - (1.0 if c == y else 0.0)
                gw[c] += g * x / len(features)
                gb[c] += g / len(features)
        w -= lr * gw
        b -= lr * gb
    return w, b


def head_numpy(features, labels, n_classes, lr=0.1, steps=100):
    if steps < 0:
        raise ValueError("pas négatif")
    x, y = features.double().numpy(), np.eye(n_classes)[labels.numpy()]
    w, b = np.zeros((n_classes, x.shape[1])), np.zeros(n_classes)
    for _ in range(steps):
        z = x @ w.T + b
        p = np.exp(z - z.max(1, keepdims=True))
        error = p / p.sum(1, keepdims=True) - y
        w, b = w - lr * error.T @ x / len(x), b - lr * error.mean(0)
    return torch.tensor(w, dtype=features.dtype), torch.tensor(b, dtype=features.dtype)


# --- freeze_except --------------------------------------------------------------------------------------------------


def freeze_two_passes(model, patterns):
    found = {p: [n for n, _ in model.named_parameters() if p in n] for p in patterns}
    if not all(found.values()):
        raise ValueError("motif inconnu")
    model.requires_grad_(False)
    keep = set().union(*found.values()) if found else set()
    for n, p in model.named_parameters():
        if n in keep:
            p.requires_grad = True
    return sorted(keep)


def freeze_find(model, patterns):
    named = dict(model.named_parameters())
    for pattern in patterns:
        if sum(name.find(pattern) >= 0 for name in named) == 0:
            raise ValueError(pattern)
    out = []
    for name in sorted(named):
        named[name].requires_grad = False
        for pattern in patterns:
            if name.find(pattern) != -1:
                named[name].requires_grad = True
        if named[name].requires_grad:
            out += [name]
    return out


def freeze_counts(model, patterns):
    seen = dict.fromkeys(patterns, 0)
    chosen = []
    for name, parameter in model.named_parameters():
        hits = [p for p in patterns if p in name]
        for p in hits:
            seen[p] += 1
        if hits:
            chosen.append((name, parameter))
    if 0 in seen.values():
        raise ValueError("motif inconnu")
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for _, parameter in chosen:
        parameter.requires_grad_(True)
    return sorted(name for name, _ in chosen)


def freeze_escaped_regex(model, patterns):
    import re

    names = [name for name, _ in model.named_parameters()]
    if any(not any(re.search(re.escape(p), n) for n in names) for p in patterns):
        raise ValueError("motif inconnu")
    wanted = re.compile("|".join(map(re.escape, patterns))) if patterns else None
    for name, parameter in model.named_parameters():
        parameter.requires_grad = bool(wanted and wanted.search(name))
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    names.sort()
    return names


# --- align_labels ---------------------------------------------------------------------------------------------------


def align_set(word_ids, word_labels):
    seen = set()
    out = []
    for w in word_ids:
        if w is not None and w not in seen:
            out.append(word_labels[w])
            seen.add(w)
        else:
            out.append(-100)
    return out


def align_zip(word_ids, word_labels):
    before = [None, *word_ids[:-1]]
    return [-100 if w is None or w == b else word_labels[w] for w, b in zip(word_ids, before, strict=False)]


def align_first_index(word_ids, word_labels):
    out = [-100] * len(word_ids)
    for i, label in enumerate(word_labels):
        if i in word_ids:
            out[word_ids.index(i)] = label
    return out


def align_index(word_ids, word_labels):
    return [
        word_labels[w] if w is not None and (i == 0 or word_ids[i - 1] != w) else -100 for i, w in enumerate(word_ids)
    ]


# --- lm_labels ------------------------------------------------------------------------------------------------------


def labels_loops(input_ids, attention_mask, prompt_lengths):
    out = torch.full_like(input_ids, -100)
    for b in range(input_ids.shape[0]):
        seen = 0
        for t in range(input_ids.shape[1]):
            if attention_mask[b, t]:
                if seen >= prompt_lengths[b]:
                    out[b, t] = input_ids[b, t]
                seen += 1
    return out


def labels_start(input_ids, attention_mask, prompt_lengths):
    """Indice de la première colonne vraie, puis comparaison des indices."""
    start = attention_mask.argmax(1, keepdim=True)
    positions = torch.arange(input_ids.size(1), device=input_ids.device).unsqueeze(0)
    out = input_ids.clone()
    out[positions < start + prompt_lengths.unsqueeze(1)] = -100
    out[attention_mask == 0] = -100
    return out


def labels_indices(input_ids, attention_mask, prompt_lengths):
    out = torch.full_like(input_ids, -100)
    for b, n in enumerate(prompt_lengths.tolist()):
        where = attention_mask[b].nonzero().flatten()[n:]
        out[b, where] = input_ids[b, where]
    return out


def labels_masked_fill(input_ids, attention_mask, prompt_lengths):
    rank = torch.cumsum(attention_mask, -1) - 1
    hidden = (rank < prompt_lengths.view(-1, 1)) | ~attention_mask.bool()
    return input_ids.masked_fill(hidden, -100)


# --- training_memory_bytes ------------------------------------------------------------------------------------------


def memory_lists(n_params, n_trainable=None):
    if n_trainable is None:
        n_trainable = n_params
    if n_trainable < 0:
        raise ValueError("négatif")
    per_trained = sum({"gradient": 2, "copie": 4, "moment 1": 4, "moment 2": 4}.values())
    return n_params * 2 + n_trainable * per_trained


def memory_frozen(n_params, n_trainable=None):
    trained = n_params if n_trainable is None else n_trainable
    if trained < 0:
        raise ValueError("négatif")
    frozen = n_params - trained
    return 16 * trained + 2 * frozen


def memory_dtypes(n_params, n_trainable=None):
    half, full = torch.bfloat16.itemsize, torch.float32.itemsize
    if n_trainable is not None and n_trainable < 0:
        raise ValueError("négatif")
    learning = n_params if n_trainable is None else n_trainable
    return half * (n_params + learning) + 3 * full * learning


# --- finetuning_storage_bytes ---------------------------------------------------------------------------------------


def storage_branches(n_params, n_tasks, bytes_per_param=2, n_task_params=None):
    if n_tasks < 0:
        raise ValueError("négatif")
    total = n_params * n_tasks if n_task_params is None else n_params + n_task_params * n_tasks
    return total * bytes_per_param


def storage_sum(n_params, n_tasks, bytes_per_param=2, n_task_params=None):
    if not n_tasks >= 0:
        raise ValueError("négatif")
    files = [n_params] * n_tasks if n_task_params is None else [n_params] + [n_task_params] * n_tasks
    return sum(files) * bytes_per_param


def storage_bytes_first(n_params, n_tasks, bytes_per_param=2, n_task_params=None):
    if n_tasks < 0:
        raise ValueError("négatif")
    base = bytes_per_param * n_params
    if n_task_params is not None:
        return base + n_tasks * bytes_per_param * n_task_params
    return n_tasks * base


STYLES = {
    "pool_last_token": [
        pool_loops,
        pool_gather,
        pool_flip,
        pool_start_and_length,
        pool_argmin,
        pool_numpy,
    ],
    "train_head": [head_autograd, head_grad_function, head_bias_in_features, head_loops, head_numpy],
    "freeze_except": [freeze_two_passes, freeze_find, freeze_counts, freeze_escaped_regex],
    "align_labels": [align_set, align_zip, align_first_index, align_index],
    "lm_labels": [labels_loops, labels_start, labels_indices, labels_masked_fill],
    "training_memory_bytes": [memory_lists, memory_frozen, memory_dtypes],
    "finetuning_storage_bytes": [storage_branches, storage_sum, storage_bytes_first],
}

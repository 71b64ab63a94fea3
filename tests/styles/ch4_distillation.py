"""Réponses justes du chapitre 4, dans d'autres styles que la référence : toutes doivent avoir tous les points."""

from __future__ import annotations

import copy
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

# --- softmax_temperature --------------------------------------------------------------------------------------------


def _refuse(temperature):
    if not temperature > 0:
        raise ValueError("température")


def softmax_by_hand(logits, temperature):
    _refuse(temperature)
    z = logits / temperature
    e = (z - z.amax(-1, keepdim=True)).exp()
    return e / e.sum(-1, keepdim=True)


def softmax_of_logs(logits, temperature):
    _refuse(temperature)
    scaled = logits * (1 / temperature)
    return (scaled - scaled.logsumexp(dim=-1, keepdim=True)).exp()


def softmax_power(logits, temperature):
    """Les probabilités élevées à la puissance 1/T, puis renormalisées, en passant par leurs logarithmes."""
    _refuse(temperature)
    return F.log_softmax(logits.double(), -1).div(temperature).softmax(-1).to(logits.dtype)


def softmax_numpy(logits, temperature):
    _refuse(temperature)
    z = logits.double().numpy() / temperature
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return torch.from_numpy(e / e.sum(axis=-1, keepdims=True)).to(logits.dtype)


def softmax_loops(logits, temperature):
    _refuse(temperature)
    rows = []
    for row in logits.reshape(-1, logits.shape[-1]).tolist():
        top = max(row)
        e = [math.exp((z - top) / temperature) for z in row]
        rows.append([x / sum(e) for x in e])
    return torch.tensor(rows, dtype=logits.dtype).reshape(logits.shape)


# --- kl_divergence --------------------------------------------------------------------------------------------------


def kl_xlogy(p, q):
    return (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(-1)


def kl_loops(p, q):
    out = []
    for a, b in zip(p.reshape(-1, p.shape[-1]).tolist(), q.reshape(-1, q.shape[-1]).tolist(), strict=True):
        total = 0.0
        for x, y in zip(a, b, strict=True):
            if x > 0:
                total += x * math.log(x / y) if y > 0 else math.inf
        out.append(total)
    return torch.tensor(out, dtype=p.dtype).reshape(p.shape[:-1])


def kl_masked_ratio(p, q):
    terms = p * torch.log(p / q)
    terms[p == 0] = 0
    return torch.sum(terms, -1)


def kl_entropies(p, q):
    """Entropie croisée moins entropie, en float64."""
    a, b = p.double(), q.double()
    cross = torch.where(a > 0, -a * b.log(), 0.0).sum(-1)
    return (cross + torch.xlogy(a, a).sum(-1)).to(p.dtype)


def kl_library(p, q):
    terms = F.kl_div(q.log(), p, reduction="none")
    return torch.where(p == 0, torch.zeros_like(terms), terms).sum(dim=-1)


def kl_numpy(p, q):
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b = p.double().numpy(), q.double().numpy()
        terms = np.where(a > 0, a * np.log(a / b), 0.0)
    return torch.as_tensor(terms.sum(-1)).to(p.dtype)


def kl_nan_to_num(p, q):
    """Seuls les 0·(−inf) deviennent des zéros ; l'infini reste."""
    terms = torch.nan_to_num(p * (p.log() - q.log()), nan=0.0, posinf=math.inf)
    return terms.sum(-1)


# --- distillation_loss ----------------------------------------------------------------------------------------------


def distillation_library(student_logits, teacher_logits, temperature=2.0):
    _refuse(temperature)
    size = student_logits.shape[-1]
    student = F.log_softmax(student_logits / temperature, -1).reshape(-1, size)
    teacher = F.softmax(teacher_logits.detach() / temperature, -1).reshape(-1, size)
    return F.kl_div(student, teacher, reduction="batchmean") * temperature * temperature


def distillation_composed(student_logits, teacher_logits, temperature=2.0):
    """Les deux exercices précédents, mis bout à bout."""
    _refuse(temperature)
    with torch.no_grad():
        p = softmax_by_hand(teacher_logits, temperature)
    return temperature**2 * kl_xlogy(p, softmax_by_hand(student_logits, temperature)).mean()


def distillation_cross_entropy(student_logits, teacher_logits, temperature=2.0):
    """Entropie croisée contre une loi, moins l'entropie de cette loi."""
    _refuse(temperature)
    size = student_logits.size(-1)
    target = (teacher_logits.detach() / temperature).softmax(-1).flatten(0, -2)
    cross = F.cross_entropy((student_logits / temperature).flatten(0, -2), target)
    entropy = -(target * target.log()).sum(-1).mean()
    assert target.shape[-1] == size
    return (cross - entropy) * temperature**2


def distillation_loops(student_logits, teacher_logits, temperature=2.0):
    _refuse(temperature)
    size = student_logits.shape[-1]
    total, count = 0.0, 0
    for s, t in zip(student_logits.reshape(-1, size), teacher_logits.reshape(-1, size), strict=True):
        p = torch.softmax(t.detach().double() / temperature, 0)
        log_q = torch.log_softmax(s.double() / temperature, 0)
        total, count = total + (p * (p.log() - log_q)).sum(), count + 1
    return (total / count * temperature**2).to(student_logits.dtype)


def distillation_log_target(student_logits, teacher_logits, temperature=2.0):
    _refuse(temperature)
    loss = nn.KLDivLoss(reduction="sum", log_target=True)
    value = loss(
        torch.log_softmax(student_logits / temperature, dim=-1),
        torch.log_softmax(teacher_logits / temperature, dim=-1).detach(),
    )
    return value / student_logits[..., 0].numel() * temperature**2


# --- combined_loss --------------------------------------------------------------------------------------------------


def combined_masked(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    """Rien n'est retiré : un masque pondère les deux sommes."""
    _refuse(temperature)
    s, t, y = student_logits[:, :-1], teacher_logits[:, :-1].detach(), labels[:, 1:]
    mask = (y != -100).to(s.dtype)
    log_p, log_q = F.log_softmax(t / temperature, -1), F.log_softmax(s / temperature, -1)
    soft = (log_p.exp() * (log_p - log_q)).sum(-1) * temperature**2
    hard = -F.log_softmax(s, -1).gather(-1, y.clamp(min=0)[..., None])[..., 0]
    return ((alpha * soft + (1 - alpha) * hard) * mask).sum() / mask.sum()


def combined_flat(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    _refuse(temperature)
    size = student_logits.shape[-1]
    s = student_logits[..., :-1, :].reshape(-1, size)
    t = teacher_logits[..., :-1, :].reshape(-1, size)
    y = labels[..., 1:].reshape(-1)
    hard = F.cross_entropy(s, y, ignore_index=-100)
    index = torch.nonzero(y != -100)[:, 0]
    soft = distillation_library(s[index], t[index], temperature)
    return torch.lerp(hard, soft, alpha)


def combined_shifted_labels(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    """Ce sont les étiquettes qu'on avance, complétées de −100 : les scores gardent leur longueur."""
    _refuse(temperature)
    ahead = torch.full_like(labels, -100)
    ahead[:, :-1] = labels[:, 1:]
    real = ahead.ne(-100)
    hard = nn.CrossEntropyLoss()(student_logits.transpose(1, 2), ahead)
    soft = distillation_composed(student_logits[real], teacher_logits[real], temperature)
    return alpha * soft + hard - alpha * hard


def combined_loops(student_logits, teacher_logits, labels, temperature=2.0, alpha=0.5):
    _refuse(temperature)
    losses = []
    for b in range(labels.shape[0]):
        for i in range(1, labels.shape[1]):
            if labels[b, i] == -100:
                continue
            s, t = student_logits[b, i - 1], teacher_logits[b, i - 1].detach()
            p = (t / temperature).softmax(0)
            soft = temperature**2 * (p * (p.log() - (s / temperature).log_softmax(0))).sum()
            losses.append(alpha * soft - (1 - alpha) * s.log_softmax(0)[labels[b, i]])
    return torch.stack(losses).mean()


# --- student_layers -------------------------------------------------------------------------------------------------


def _refuse_depth(n_teacher, n_student):
    if n_student < 1 or n_student > n_teacher:
        raise ValueError("couches")


def layers_linspace(n_teacher, n_student):
    _refuse_depth(n_teacher, n_student)
    return np.linspace(0, n_teacher - 1, n_student).round().astype(int).tolist()


def layers_torch(n_teacher, n_student):
    _refuse_depth(n_teacher, n_student)
    return torch.linspace(0, n_teacher - 1, n_student).round().long().tolist()


def layers_step(n_teacher, n_student):
    _refuse_depth(n_teacher, n_student)
    step = (n_teacher - 1) / max(n_student - 1, 1)
    kept = []
    for i in range(n_student):
        kept.append(int(round(i * step)))
    return kept


def layers_integers(n_teacher, n_student):
    """L'arrondi au pair, en entiers seulement."""
    _refuse_depth(n_teacher, n_student)
    if n_student == 1:
        return [0]
    kept = []
    for i in range(n_student):
        low, rest = divmod(i * (n_teacher - 1), n_student - 1)
        up = 2 * rest > n_student - 1 or (2 * rest == n_student - 1 and low % 2 == 1)
        kept.append(low + up)
    return [int(k) for k in kept]


# --- build_student --------------------------------------------------------------------------------------------------


def student_deepcopy(teacher, layers):
    """Une copie entière, dont on retire des blocs ; chaque bloc restant apprend sa nouvelle place dans le cache."""
    student = copy.deepcopy(teacher)
    student.transformer.h = nn.ModuleList(student.transformer.h[i] for i in layers)
    for i, block in enumerate(student.transformer.h):
        block.attn.layer_idx = i
    student.config.n_layer = len(layers)
    return student.eval()


def student_module_by_module(teacher, layers):
    config = GPT2Config(**{**teacher.config.to_dict(), "n_layer": len(layers)})
    config._attn_implementation = teacher.config._attn_implementation
    student = GPT2LMHeadModel(config)
    old, new = teacher.transformer, student.transformer
    pairs = [(new.wte, old.wte), (new.wpe, old.wpe), (new.ln_f, old.ln_f)]
    pairs += [(new.h[i], old.h[j]) for i, j in enumerate(layers)]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())
    student.eval()
    return student


def student_parameter_by_parameter(teacher, layers):
    config = copy.deepcopy(teacher.config)
    config.num_hidden_layers = len(layers)
    student = GPT2LMHeadModel(config).eval()
    source = dict(teacher.named_parameters())
    with torch.no_grad():
        for name, p in student.named_parameters():
            parts = name.split(".")
            if parts[1] == "h":
                parts[2] = str(layers[int(parts[2])])
            p.copy_(source[".".join(parts)])
    return student


def student_cloned_data(teacher, layers):
    config = type(teacher.config).from_dict(teacher.config.to_dict() | {"n_layer": len(layers)})
    student = type(teacher)._from_config(config)
    student.transformer.wte.weight.data = teacher.transformer.wte.weight.detach().clone()
    student.transformer.wpe.weight.data = teacher.transformer.wpe.weight.detach().clone()
    student.transformer.ln_f = copy.deepcopy(teacher.transformer.ln_f)
    for i, layer in enumerate(layers):
        student.transformer.h[i].load_state_dict(teacher.transformer.h[layer].state_dict())
    student.tie_weights()
    return student.eval()


# --- ensemble_probs -------------------------------------------------------------------------------------------------


def ensemble_loops(logits):
    total = torch.zeros_like(logits[0])
    for one in logits:
        total = total + one.softmax(-1) / len(logits)
    return total


def ensemble_einsum(logits):
    probs = F.softmax(logits, dim=-1)
    share = logits.new_full((logits.shape[0],), 1 / logits.shape[0])
    return torch.einsum("m,m...->...", share, probs)


def ensemble_logs(logits):
    """La moyenne, calculée sur les logarithmes."""
    log_probs = torch.log_softmax(logits.double(), -1)
    return (log_probs.logsumexp(0) - math.log(len(logits))).exp().to(logits.dtype)


def ensemble_numpy(logits):
    z = logits.double().numpy()
    e = np.exp(z - z.max(-1, keepdims=True))
    return torch.from_numpy((e / e.sum(-1, keepdims=True)).mean(0)).to(logits.dtype)


STYLES = {
    "softmax_temperature": [softmax_by_hand, softmax_of_logs, softmax_power, softmax_numpy, softmax_loops],
    "kl_divergence": [kl_xlogy, kl_loops, kl_masked_ratio, kl_entropies, kl_library, kl_numpy, kl_nan_to_num],
    "distillation_loss": [
        distillation_library,
        distillation_composed,
        distillation_cross_entropy,
        distillation_loops,
        distillation_log_target,
    ],
    "combined_loss": [combined_masked, combined_flat, combined_shifted_labels, combined_loops],
    "student_layers": [layers_linspace, layers_torch, layers_step, layers_integers],
    "build_student": [
        student_deepcopy,
        student_module_by_module,
        student_parameter_by_parameter,
        student_cloned_data,
    ],
    "ensemble_probs": [ensemble_loops, ensemble_einsum, ensemble_logs, ensemble_numpy],
}

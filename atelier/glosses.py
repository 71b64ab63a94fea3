"""Les mots de Python et de torch, dits en français : ce que l'erreur signifie, et quoi faire.

Une glose n'est donnée que si elle est juste dans ce cas ; une erreur inconnue reste telle quelle.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from atelier.text import typeset

_TABLE = r"""
OutOfMemoryError|RuntimeError|AcceleratorError :: CUDA out of memory|MPS backend out of memory|
CUDA error: out of memory|CUBLAS_STATUS_ALLOC_FAILED
    la mémoire de la carte est pleine. Redémarrez le noyau (menu Noyau) pour la vider, puis prenez moins à la
    fois (lot plus petit, séquences plus courtes), ou l'échelle « cpu » : os.environ["COURS_ECHELLE"] = "cpu"
    dans la première cellule.

RuntimeError :: DefaultCPUAllocator|can't allocate memory|not enough memory
    la mémoire de la machine ne suffit pas : le tenseur demandé est trop grand. Regardez les formes (une
    diffusion de (n, 1) avec (1, n) donne n × n), ou traitez les données par morceaux.

MemoryError ::
    la mémoire de la machine ne suffit pas à ce que cette ligne demande. Regardez les tailles, ou traitez les
    données par morceaux ; redémarrer le noyau rend la mémoire déjà prise.

RuntimeError|AcceleratorError :: device-side assert
    un calcul sur la carte a reçu une valeur interdite, le plus souvent un indice hors bornes (un jeton ≥ la
    taille du vocabulaire, une cible ≥ le nombre de classes). La carte n'est plus utilisable : redémarrez le
    noyau, puis refaites ce calcul sur CPU, qui dira lequel.

RuntimeError|AcceleratorError :: no kernel image|CUDA driver version is insufficient|
driver on your system is too old|Found no NVIDIA driver
    cette version de torch ne sait pas se servir de la carte de cette machine (carte ou pilote trop anciens).
    Travaillez sur CPU : os.environ["COURS_DEVICE"] = "cpu" dans la première cellule, noyau redémarré.

AssertionError|RuntimeError :: not compiled with CUDA|No CUDA GPUs are available|
not linked with support for (?:cuda|mps)
    il n'y a pas de carte CUDA utilisable ici : n'écrivez pas .cuda() ni « cuda », mais .to(atelier.device()),
    ou .to(x.device) pour suivre un tenseur donné.

RuntimeError :: Attempting to deserialize object on a CUDA device
    ce fichier vient d'une machine qui avait une carte : torch.load(…, map_location="cpu").

RuntimeError|TypeError|ValueError :: to be on the same device|two devices|is on the same device|on CPU, but|
must be on the same device|Input type \(torch\.(?:cuda|mps).* and weight type|and weight type \(torch\.(?:cuda|mps)|
device type at start of|should be the same as the generator device|Expected a '?\w+'? device type for generator|
Placeholder storage has not been allocated|indices should be either on
    deux tenseurs sont sur deux appareils différents (la carte et le CPU). Créez les nouveaux là où sont les
    autres (torch.zeros(…, device=x.device)), ou déplacez-les avec .to(x.device).

TypeError|RuntimeError :: can't convert \S+ device type tensor to numpy
    NumPy ne lit pas la mémoire de la carte : x.detach().cpu().numpy().

RuntimeError|AcceleratorError :: ^CUDA error|CUDNN_STATUS|CUBLAS_STATUS
    le calcul sur la carte a échoué, parfois plus haut que la ligne montrée. Redémarrez le noyau ; si cela se
    reproduit, essayez sur CPU (os.environ["COURS_DEVICE"] = "cpu" dans la première cellule), dont les messages
    sont plus précis.

UnboundLocalError :: (?:variable|local variable) '(?P<name>[^']+)'
    dans cette fonction, « {name} » est lue avant d'avoir reçu une valeur : un « if » non pris, une boucle qui
    ne tourne pas, ou une affectation placée plus bas.

NameError :: free variable '(?P<name>[^']+)'
    « {name} » appartient à la fonction qui entoure celle-ci, et n'y a pas encore de valeur.

NameError :: name '(?P<name>[^']+)' is not defined
    le nom « {name} » est employé sans avoir été défini : faute de frappe, import oublié, ou cellule qui le
    définit pas encore exécutée (après un redémarrage, tout est à réexécuter depuis le haut).

ModuleNotFoundError :: No module named '(?P<name>[^']+)'
    le module « {name} » n'est pas installé ici : faute de frappe ? Aucun exercice n'en demande d'autre que ceux
    du carnet.

ImportError :: cannot import name '(?P<name>[^']+)'
    ce module existe, mais ne contient rien du nom de « {name} » : faute de frappe, ou autre version.

ZeroDivisionError ::
    une division par zéro.

RecursionError ::
    une fonction s'appelle elle-même sans jamais s'arrêter : il lui manque un cas où elle ne se rappelle pas.

TypeError :: can't multiply sequence by non-int|can only concatenate (?P<a>list|str|tuple) \(not \"(?P<b>\w+)\"\)
    une liste ou un texte n'est pas un nombre : pour calculer élément par élément, faites-en un tenseur
    (torch.tensor(…)).

TypeError :: unsupported operand type\(s\) for (?P<op>\S+): (?:.*')?NoneType'|'NoneType' object is not|
not supported between instances of .*'NoneType'|non-iterable NoneType|object of type 'NoneType'|
bad operand type for unary \S+ 'NoneType'
    une valeur vaut None : une fonction sans return, une méthode qui modifie sur place sans rien rendre
    (liste.sort(), liste.append()), ou un argument facultatif qu'on n'a pas reçu.

AttributeError :: 'NoneType' object has no attribute '(?P<name>[^']+)'
    la valeur dont on demande « {name} » vaut None : une fonction sans return, un gradient pas encore calculé,
    ou un argument facultatif qu'on n'a pas reçu.

TypeError :: '(?:builtin_function_or_method|function|method|type)' object is not (?:subscriptable|iterable)|
unsupported operand type\(s\) for .*'(?:builtin_function_or_method|method|function)'
    une fonction est employée sans être appelée : il manque les parenthèses.

TypeError :: unsupported operand|bad operand type
    une opération entre deux valeurs de types incompatibles.

TypeError :: not supported between instances
    deux valeurs qui ne se comparent pas (un nombre et un texte ?).

TypeError :: '(?P<name>[\w.]+)' object is not callable
    une valeur de type {name} est appelée comme une fonction : des parenthèses de trop, ou une variable qui a
    pris le nom de la fonction.

TypeError :: not subscriptable
    une valeur seule est employée comme une liste ou un dictionnaire.

TypeError :: iteration over a 0-d|'(?:int|float|bool)' object is not iterable|non-iterable (?:int|float)
    on parcourt une valeur seule comme une liste : pour compter jusqu'à n, range(n) ; un tenseur à zéro
    dimension se lit par .item().

TypeError :: len\(\) of a 0-d|object of type '(?:int|float|bool)' has no len
    une valeur seule n'a pas de longueur (un tenseur à zéro dimension contient un seul nombre, .numel() vaut 1).

TypeError :: not iterable|non-iterable
    une valeur seule est parcourue comme une liste.

TypeError :: indices must be integers
    un indice de liste est un entier : // au lieu de /, ou int(…).

TypeError :: 'float' object cannot be interpreted as an integer
    il faut un entier, et c'est un nombre à virgule : // au lieu de / pour une division exacte.

TypeError :: unhashable type
    une liste (ou un dictionnaire) ne peut pas servir de clé : prenez un n-uplet.

TypeError :: does not support item assignment
    ce genre d'objet ne se modifie pas : construisez-en un autre.

ValueError :: too many values to unpack|not enough values to unpack
    il n'y a pas autant de noms à gauche du « = » que de valeurs à droite : regardez ce que rend la fonction, ou
    combien de dimensions a la forme.

ValueError :: math domain error|expected a (?:positive|nonnegative) input
    une fonction de math est appelée hors de son domaine : racine ou logarithme d'un nombre négatif ou nul.

TypeError|ValueError :: only one element tensors can be converted|Only one element tensors can be converted
    une fonction attend un seul nombre, et reçoit tout un tenseur : prenez les fonctions de torch (torch.sqrt,
    torch.log…) ou un seul élément.

ValueError :: (?:max|min)\(\) (?:arg|iterable argument) is (?:an )?empty
    la liste est vide : elle n'a ni plus grand ni plus petit élément.

ValueError :: truth value of an array
    un « if » (ou and, or, not) a besoin d'un seul booléen, et reçoit tout un tableau : .any(), .all(), ou & et
    | entre parenthèses.

ValueError|OverflowError :: cannot convert float (?:NaN|infinity) to integer
    le calcul a donné nan ou l'infini (division par zéro, logarithme de zéro), qui ne sont pas des entiers.

ValueError :: invalid literal for int|could not convert string to float
    ce texte n'est pas un nombre (en Python, la virgule d'un nombre s'écrit avec un point).

OverflowError ::
    un nombre dépasse ce que son type peut contenir.

RuntimeError :: changed size during iteration
    un dictionnaire est modifié pendant qu'on le parcourt : parcourez-en une copie, list(d).

KeyError ::
    cette clé n'est pas dans le dictionnaire : affichez ses clés, list(d).

StopIteration ::
    l'itérateur est épuisé : next() n'a plus rien à rendre.

FileNotFoundError ::
    ce fichier n'existe pas là où on le cherche : regardez le nom et le dossier (os.getcwd()).

PermissionError ::
    ce fichier ou ce dossier ne permet pas cette opération.

RuntimeError :: shapes cannot be multiplied|^size mismatch, got input|batch2 tensor to be|
inconsistent tensor size, expected tensor|Expected size for first two dimensions
    les dimensions intérieures du produit diffèrent : (n, k) · (k, m). Affichez les formes (.shape) ;
    manque-t-il une transposée ?

RuntimeError :: expanded size of the tensor .* must match the existing size
    les formes ne s'alignent pas : seule une dimension de taille 1 s'étend. Affichez les formes (.shape).

RuntimeError|ValueError :: operands could not be broadcast together|
The size of tensor a .* must match the size of tensor b|not broadcastable
    les formes des deux tenseurs ne s'alignent pas : de droite à gauche, chaque dimension doit être égale, ou
    valoir 1. Affichez les formes (.shape) ; keepdim=True garde une dimension réduite.

RuntimeError :: Sizes of tensors must match except in dimension|stack expects each tensor to be equal size|
Tensors must have same number of dimensions
    cat et stack demandent des tenseurs de mêmes formes (pour cat, sauf dans la dimension où on les met bout à
    bout).

RuntimeError :: view size is not compatible
    view demande un tenseur contigu ; reshape, non.

RuntimeError :: is invalid for input of size
    la forme demandée ne compte pas autant d'éléments que le tenseur.

RuntimeError :: number of dimensions in the tensor input does not match the length of the desired ordering
    permute demande une position par dimension du tenseur, ni plus ni moins.

IndexError :: Dimension out of range|Dimension specified as 0 but tensor has no dimensions
    le tenseur n'a pas cette dimension : affichez sa forme (.shape) ; −1 désigne la dernière.

IndexError :: too many indices
    il y a plus d'indices que de dimensions : affichez la forme (.shape).

IndexError :: invalid index of a 0-dim
    ce tenseur ne contient qu'un nombre, sans indice : x.item().

IndexError :: shape of the mask
    le masque n'a pas la forme du tenseur qu'il choisit.

IndexError|RuntimeError :: tensors used as indices must be|Expected dtype int(?:32/int)?64 for index
    un tenseur d'indices contient des entiers ou des booléens : .long(), ou une comparaison.

IndexError :: index out of range in self
    un indice dépasse la table (un jeton ≥ la taille du vocabulaire, une position ≥ le contexte).

IndexError :: Target -?\d+ is out of bounds
    une cible n'est pas un numéro de classe : ils vont de 0 au nombre de classes moins un.

IndexError :: out of (?:range|bounds)
    un indice sort des bornes : le premier est 0, le dernier vaut la longueur moins un.

RuntimeError :: selected (?:index|number) k out of range
    k dépasse le nombre d'éléments de cette dimension.

RuntimeError :: Expected reduction dim|to be specified for input.numel\(\) == 0|cannot perform reduction function
    le tenseur est vide : il n'a ni plus grand ni plus petit élément.

ValueError :: Expected input batch_size .* to match target batch_size
    il n'y a pas autant de cibles que de prédictions : aplatissez les deux de la même façon.

RuntimeError :: Expected target size|target tensor expected|multi-target not supported|
only batches of spatial targets
    cross_entropy attend des scores (N, classes) et des cibles (N) : aplatissez les deux de la même façon.

RuntimeError :: Boolean value of Tensor with no values
    un « if » a besoin d'un booléen, et reçoit un tenseur vide.

RuntimeError :: Boolean value of Tensor
    un « if » (ou and, or, not) a besoin d'un seul booléen, et reçoit tout un tenseur : .any(), .all(),
    torch.where(…), ou & et | entre parenthèses.

RuntimeError :: elements? cannot be converted to Scalar
    on demande un seul nombre (.item(), float(…)) à un tenseur qui en contient plusieurs.

RuntimeError :: expected scalar type (?P<a>\w+) but found (?P<b>\w+)
    un tenseur de type {b} là où il en faut un de type {a} : convertissez-le (.to(…), .float(), .long()).

RuntimeError :: same dtype|same scalar type|dtypes to match|dtypes match|expected m1 and m2|
Input type .* and (?:bias|weight) type
    deux tenseurs de types différents se rencontrent : convertissez l'un des deux (.to(x.dtype)).

RuntimeError :: could not infer output dtype|either a floating point or complex dtype|only support floating point|
expected to be a floating|Expected floating point type
    cette fonction demande des nombres à virgule, et reçoit des entiers ou des booléens : .float().

RuntimeError :: can't be cast to the desired output type
    le résultat ne tient pas dans le type du tenseur modifié sur place (des nombres à virgule dans un tenseur
    d'entiers) : convertissez-le d'abord, .float().

RuntimeError :: (?:with two bool tensors|on a bool tensor|with a bool tensor) is not supported
    un masque ne se soustrait pas : ~masque pour l'inverse, & et | pour les combiner.

RuntimeError :: Integers to negative integer powers
    un tenseur d'entiers ne s'élève pas à une puissance négative : .float() d'abord, ou 2.0.

RuntimeError :: cannot be converted to type \w+ without overflow
    cette valeur ne tient pas dans le type du tenseur.

RuntimeError|NotImplementedError :: not implemented for '(?P<name>\w+)'
    cette opération n'existe pas pour un tenseur de type {name} : convertissez-le (.float(), .long()…).

TypeError :: invalid combination of arguments
    les arguments donnés à cette fonction de torch ne sont pas ceux qu'elle attend : nombre, ordre ou types (un
    nombre là où il faut un tenseur ?).

TypeError :: argument '(?P<name>\w+)' .*must be Tensor, not (?P<kind>\w+)
    l'argument {name} doit être un tenseur, et c'est un {kind} : torch.tensor(…), ou les fonctions de math.

TypeError :: argument '(?P<name>\w+)' .*must be (?P<want>[\w ]+), not (?P<kind>\w+)
    l'argument {name} n'est pas du type attendu : {want}, et non {kind}.

RuntimeError :: modified by an inplace operation
    un tenseur dont le gradient a besoin a été modifié sur place (+=, x[…] = …, relu_) : écrivez x = x + …

RuntimeError :: leaf Variable|leaf variable
    un paramètre suivi par autograd est modifié sur place : entourez de with torch.no_grad().

RuntimeError :: Can't call numpy\(\) on Tensor that requires grad
    un tenseur suivi par autograd ne se convertit pas tel quel : x.detach().numpy().

RuntimeError :: does not require grad and does not have a grad_fn
    backward() part d'une valeur qui ne dépend d'aucun paramètre à apprendre : un .detach(), un .item(), un
    no_grad ou un modèle gelé l'en a coupée.

RuntimeError :: backward through the graph a second time
    backward() est appelé deux fois sur le même calcul : refaites le calcul avant, ou une seule fois sur la
    somme des pertes.

RuntimeError :: grad can be implicitly created only for scalar
    backward() part d'un seul nombre : .mean() ou .sum() d'abord.

RuntimeError :: [Ii]nference tensors?
    ce tenseur vient d'un bloc torch.inference_mode(), hors d'autograd : clonez-le (.clone()), ou prenez
    torch.no_grad().

RuntimeError :: deepcopy protocol
    deepcopy ne copie pas un tenseur calculé : x.detach().clone().

RuntimeError :: Only Tensors of floating point
    seul un tenseur de nombres à virgule peut avoir un gradient.

AttributeError :: before Module\.__init__\(\)
    une classe qui hérite de nn.Module commence son __init__ par super().__init__().

NotImplementedError :: missing the required \"forward\"
    la classe n'a pas de méthode forward (faute de frappe, ou indentation qui la met hors de la classe ?).

TypeError :: cannot assign .* as parameter
    l'attribut d'un module qui était un paramètre en reste un : nn.Parameter(…), ou with torch.no_grad() et
    .copy_(…).

ValueError :: optimizer got an empty parameter list
    aucun paramètre à apprendre : tous sont gelés, ou rangés dans une liste ordinaire (nn.ModuleList les fait
    voir).

ValueError :: can't optimize a non-leaf Tensor
    l'optimiseur n'apprend que des paramètres, pas le résultat d'un calcul.

RuntimeError :: Error\(s\) in loading state_dict
    ces poids ne sont pas ceux de ce modèle (noms ou formes).

AttributeError :: '(?P<kind>[\w.]+)' object has no attribute '(?P<name>[^']+)'
    un objet de type {kind} n'a ni attribut ni méthode du nom de « {name} » : faute de frappe, ou objet d'un
    autre type que prévu ?

AttributeError :: module '(?P<kind>[\w.]+)' has no attribute '(?P<name>[^']+)'
    le module {kind} n'a rien du nom de « {name} » : faute de frappe, ou autre module ?

SystemExit|KeyboardInterrupt ::
    votre code demande l'arrêt du programme : une fonction rend une valeur, ou lève une erreur.

TabError ::
    des tabulations et des espaces se mélangent au début des lignes : effacez ces débuts de ligne et retapez-les
    avec quatre espaces par niveau.

IndentationError :: unexpected indent
    cette ligne est trop à droite : même alignement que la précédente, sauf après un « : ».

IndentationError :: unindent does not match
    cette ligne n'est alignée avec aucune de celles qui la précèdent.

IndentationError :: expected an indented block
    après un « : », la suite s'écrit quatre espaces plus à droite.

SyntaxError :: '(?P<name>[(\[{])' was never closed
    le « {name} » ouvert ici n'est jamais refermé.

SyntaxError :: unmatched '(?P<name>.)'
    ce « {name} » ferme quelque chose qui n'a pas été ouvert.

SyntaxError :: closing parenthesis '(?P<b>.)' does not match opening parenthesis '(?P<a>.)'
    « {a} » est ouvert, mais c'est « {b} » qui ferme.

SyntaxError :: unterminated .*string literal|EOL while scanning
    il manque le guillemet qui ferme le texte.

SyntaxError :: expected ':'
    il manque un « : » à la fin de cette ligne.

SyntaxError :: Maybe you meant '==' or|cannot assign to
    « = » donne une valeur à un nom ; pour comparer, « == ».

SyntaxError :: 'return' outside function
    ce return n'est dans aucune fonction : il est sans doute mal aligné.

SyntaxError :: Missing parentheses in call to
    print est une fonction : print(…).

SyntaxError :: Perhaps you forgot a comma
    il manque sans doute une virgule, ou un signe entre deux valeurs.

SyntaxError :: invalid decimal literal
    un nombre est collé à un nom : il manque un signe (2*x), ou le nom commence par un chiffre.

SyntaxError :: positional argument follows keyword argument
    dans un appel, les arguments nommés viennent après les autres.

SyntaxError :: leading zeros
    un entier ne commence pas par un zéro.
"""
"""Par paragraphe : classes d'erreur « :: » motif cherché dans le message, puis, en retrait, la glose.

La première qui convient l'emporte ; les groupes nommés du motif se retrouvent dans la glose.
"""


def _read_table(text: str) -> list[tuple[re.Pattern[str], re.Pattern[str], str]]:
    found = []
    for entry in text.strip().split("\n\n"):
        lines = entry.split("\n")
        kinds, _, pattern = "".join(line for line in lines if not line.startswith(" ")).partition(" ::")
        gloss = typeset(" ".join(line.strip() for line in lines if line.startswith(" ")))
        found.append((re.compile(kinds), re.compile(pattern.strip()), gloss))
    return found


_GLOSSES = _read_table(_TABLE)

_CALLED = re.compile(
    r"(?P<callee>[\w.<>]+)\(\) (?:missing \d|takes |got an unexpected keyword|got multiple values|got some positional)"
)


def explain(names: Sequence[str], message: str, signature: str = "", own: bool = False) -> str:
    """Une erreur courante dite en français ; vide si elle n'est pas dans la liste.

    names : la classe de l'erreur et celles dont elle hérite ; signature : celle de l'exercice, s'il y en a un ;
    own : l'erreur vient d'un `raise` (ou d'un `assert`) du lecteur lui-même.
    """
    short = [name.rpartition(".")[2] for name in names]
    if own and "SystemExit" not in short:
        return "c'est votre code qui lève cette erreur, sur une entrée que l'énoncé permet." if signature else ""
    if "TypeError" in short and (call := _CALLED.match(message)):
        return _explain_call(call["callee"], signature)
    if {"SyntaxError", "IndentationError"} & {*short} and (found := explain_character(message)):
        return found
    for kinds, pattern, gloss in _GLOSSES:
        if any(kinds.fullmatch(name) for name in short) and (match := pattern.search(message)):
            return gloss.format(**match.groupdict())
    return ""


def _explain_call(callee: str, signature: str) -> str:
    """Un appel dont les arguments ne vont pas."""
    name = callee.removesuffix(".__init__").rpartition(".")[2]
    if signature and name == signature.partition("(")[0]:
        return f"la signature attendue est {signature}."
    what = "il en manque, il y en a trop, ou un nom est faux"
    return f"l'appel de {name} ne donne pas les arguments qu'il faut\u00a0: {what}."


# --- Un caractère qui n'est pas du clavier ----------------------------------------------------------------------------

_CHARACTERS = {
    "\u00a0": ("une espace insécable", " "),
    "\u202f": ("une espace fine insécable", " "),
    "\u2212": ("le signe moins des mathématiques", "-"),
    "\u2013": ("un tiret demi-cadratin", "-"),
    "\u2014": ("un tiret cadratin", "-"),
    "\u2010": ("un trait d'union typographique", "-"),
    "\u2011": ("un trait d'union insécable", "-"),
    "\u2018": ("une apostrophe typographique", "'"),
    "\u2019": ("une apostrophe typographique", "'"),
    "\u201c": ("un guillemet anglais", '"'),
    "\u201d": ("un guillemet anglais", '"'),
    "\u201e": ("un guillemet bas", '"'),
    "\u00ab": ("un guillemet français", '"'),
    "\u00bb": ("un guillemet français", '"'),
    "\u2032": ("une prime", "'"),
    "\u00d7": ("le signe de multiplication", "*"),
    "\u22c5": ("le point de multiplication", "*"),
    "\u00b7": ("le point de multiplication", "*"),
    "\u00f7": ("le signe de division", "/"),
    "\u2044": ("une barre de fraction", "/"),
    "\u2264": ("le signe inférieur ou égal", "<="),
    "\u2265": ("le signe supérieur ou égal", ">="),
    "\u2260": ("le signe différent", "!="),
    "\u2026": ("des points de suspension en un seul caractère", "..."),
    "\u00b2": ("un exposant", "**2"),
    "\u00b3": ("un exposant", "**3"),
    "\u2192": ("une flèche", "->"),
}
_INVALID = re.compile(r"invalid (?:non-printable )?character .*\bU\+([0-9A-Fa-f]{4,6})")


def explain_character(message: str) -> str:
    """« invalid character '−' (U+2212) », en français, avec ce qu'il faut taper à la place. Vide sinon."""
    match = _INVALID.search(message)
    code = int(match[1], 16) if match else -1
    return _say_character(chr(code)) if 0 <= code <= 0x10FFFF else ""


def _say_character(c: str) -> str:
    what, instead = _CHARACTERS.get(c, ("", ""))
    code = f"U+{ord(c):04X}"
    if not what:
        category, plain = unicodedata.category(c), unicodedata.normalize("NFKC", c)
        if category in ("Cf", "Cc", "Co", "Cn", "Cs"):
            return (
                f"un caractère invisible ({code}) s'est glissé dans cette ligne, sans doute par un copier-coller\u00a0:"
                " effacez la ligne et retapez-la."
            )
        if category in ("Zs", "Zl", "Zp"):
            what, instead = "une espace qui n'est pas celle du clavier", " "
        elif category == "Pd":
            what, instead = "un tiret typographique", "-"
        elif plain.isascii() and plain.isprintable() and plain != c:
            what, instead = "un caractère pleine chasse ou décoré", plain
        else:
            return f"le caractère «\u00a0{c}\u00a0» ({code}) ne s'écrit pas en Python hors d'un texte entre guillemets."
    if instead == " ":
        return (
            f"{what} ({code}), qui ne se voit pas, s'est glissée dans cette ligne, sans doute par un copier-coller"
            "\u00a0: effacez les espaces de la ligne et retapez-les."
        )
    return (
        f"«\u00a0{c}\u00a0» ({code}) est {what}, sans doute venu d'un copier-coller\u00a0: remplacez-le par celui du "
        f"clavier,  {instead}"
    )


_TEXTS = re.compile(r"""("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|#.*""")


def explain_syntax(names: Sequence[str], message: str, line: str) -> str:
    """Une erreur de syntaxe en français ; line : la ligne en cause, où l'on cherche aussi un caractère étranger."""
    if found := explain_character(message):
        return found
    strange = next((c for c in _TEXTS.sub("", line[:300]) if c in _CHARACTERS), "")
    return _say_character(strange) if strange else explain(names, message)

"""How the checkpoints of a family say what the models here compute: settings of config.json, and names of tensors.

A family is data: a translation of settings into a config, and for each module of a checkpoint the module of the model
that it is, or the several that it holds side by side. It must not know of files, shares or parties.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any, NoReturn

import msgspec
from torch import Tensor

from puma.errors import UnsupportedModel
from puma.models.architecture import Architecture, Shapes
from puma.models.pooling import EMBED

State = dict[str, Tensor]
Choices = Mapping[str, tuple[Any, ...]]
TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_fast", "gelu_accurate")
GELUS = {"gelu": "gelu", "gelu_python": "gelu"} | dict.fromkeys(TANH, "gelu_tanh")
GATES = GELUS | {"silu": "silu", "swish": "silu", "quick_gelu": "quick_gelu"}
ACTIVATIONS = GATES | {"relu": "relu"}
MOST_LABELS = 1 << 16
SPAN = ("start", "end")  # of an answer in a text
NEXT_SENTENCE = ("next", "not next")
PROBLEMS = {"regression": "identity", "single_label_classification": "softmax", "multi_label_classification": "sigmoid"}
WORDED = ("prompt", "template", "answer")  # how a query and a text are put, as files/relevance.py writes it
FUNCTIONS = {"Identity": "identity", "Sigmoid": "sigmoid", "Softmax": "softmax"}  # of torch.nn
# Where null says something else than nothing: that there is none, whatever the family's default is.
NULLABLE = frozenset({
    "attn_logit_softcapping", "final_logit_softcapping", "head_dim", "local_rope_theta", "num_key_value_heads",
    "pad_token_id", "sliding_window",
})  # fmt: skip


@dataclass(frozen=True)
class Grouped:
    """A tensor of a checkpoint that holds something of every expert: of each the `targets`, in which the second {} is
    its number. `cut` makes these of it, expert by expert; `shape` is its own, of how many experts and the first one's.
    """

    targets: tuple[str, ...]
    shape: Callable[[int, tuple[int, ...]], tuple[int, ...]]
    cut: Callable[[Tensor], list[Tensor]]


@dataclass(frozen=True)
class Names:
    """Modules of a checkpoint -> those of the model; {} stands for a layer's number.

    Several modules lie below each other in one tensor, or, if `interleaved`, each head's rows of them do, or as `cut`
    takes them apart. `transposed` modules are stored (in, out). What is `fused` is a tensor of several equal parts, one
    below the other, in some files only; what is `stacked` one of all experts, with these parts of each. Of those in
    `skip` the first rows are no part of the model; norms of `offset` families are stored less 1. `prefix` is what a
    checkpoint without head lacks. Names that match `ignored` are left aside, `renamed` are patterns and what else is
    written for them, `copies` of the embedding's table must equal it, and tensors of `instead` are read in place of
    others.
    """

    modules: Mapping[str, str | tuple[str, ...]]
    prefix: str = ""
    ignored: str = r"$^"
    renamed: Mapping[str, str] = field(default_factory=dict)
    copies: tuple[str, ...] = ()
    instead: Mapping[str, str] = field(default_factory=dict)
    grouped: Mapping[str, Grouped] = field(default_factory=dict)
    transposed: frozenset[str] = frozenset()
    interleaved: frozenset[str] = frozenset()
    cut: Mapping[str, Callable[[Tensor], list[Tensor]]] = field(default_factory=dict)
    stacked: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fused: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    skip: Mapping[str, int] = field(default_factory=dict)
    offset: bool = False

    def stored(self, layers: int, shapes: Shapes) -> Iterator[tuple[str, str, list[str]]]:
        """Each tensor of a checkpoint: its module as `modules` names it, its name, and what of `shapes` it holds."""
        for module, found in self.modules.items():
            targets = (found,) if isinstance(found, str) else found
            for i in range(layers if "{}" in module else 1):
                if targets and targets[0].format(i) in shapes:  # a tensor that belongs to no module
                    yield module, module.format(i), [target.format(i) for target in targets]
                for kind in ("weight", "bias"):
                    wanted = [f"{target.format(i)}.{kind}" for target in targets]
                    if wanted and wanted[0] in shapes:
                        yield module, f"{module.format(i)}.{kind}", wanted
        for module, group in self.grouped.items():
            for i in range(layers):
                first = (group.targets[0].format(i, e) for e in count())
                experts = range(sum(1 for _ in takewhile(shapes.__contains__, first)))
                wanted = [target.format(i, e) for e in experts for target in group.targets]
                if wanted:
                    yield module, module.format(i), wanted

    def shape(self, module: str, wanted: list[str], shapes: Shapes) -> tuple[int, ...]:
        """The shape that such a tensor has in a checkpoint."""
        if module in self.grouped:
            group = self.grouped[module]
            return group.shape(len(wanted) // len(group.targets), shapes[wanted[0]])
        rows = sum(shapes[name][0] for name in wanted) + self.skip.get(module, 0)
        shape = (rows, *shapes[wanted[0]][1:])
        return shape[::-1] if module in self.transposed else shape

    def parts(self, module: str, tensor: Tensor, sizes: list[int], heads: int) -> list[Tensor]:
        """What such a tensor holds, each (out, in)."""
        if module in self.grouped:
            return self.grouped[module].cut(tensor)
        if module in self.cut:
            return self.cut[module](tensor)
        if module in self.transposed and tensor.ndim == 2:
            tensor = tensor.T.contiguous()
        tensor = tensor[self.skip.get(module, 0) :]
        if module in self.interleaved:
            by_head = tensor.reshape(heads, len(sizes), -1, *tensor.shape[1:]).transpose(0, 1)
            return [part.reshape(-1, *tensor.shape[1:]) for part in by_head]
        return list(tensor.split(sizes))


@dataclass(frozen=True)
class Family:
    """A class of checkpoints, as config.json names it."""

    architecture: Architecture
    settings: Callable[[dict[str, Any], set[str]], dict[str, Any]]  # config.json, tensors -> fields of the config
    names: Names
    fields: Mapping[str, str] = field(default_factory=dict)  # of the config -> settings of config.json
    supported: Choices = field(default_factory=dict)  # what changes the arithmetic, and its implemented values
    variant: Callable[[Any], Names] | None = None  # the names, where they depend on the config
    model_type: str = ""  # what config.json says beside the class's name
    defaults: Mapping[str, Any] = field(default_factory=dict)  # of settings that config.json may leave out
    older: Mapping[str, Any] = field(default_factory=dict)  # the same of settings that the library writes no more
    aliases: Mapping[str, str] = field(default_factory=dict)  # other names of settings, which win
    shares: bool = False  # whether a head that is not there is the embedding's table, whatever config.json says

    def read(self, raw: dict[str, Any], names: set[str]) -> Any:
        """The config in a decoded config.json; refuses what would be computed wrongly."""
        raw = self.completed(raw)
        for name, values in self.supported.items():
            if name in raw and raw[name] not in values:
                refuse(f"sets {name} to {raw[name]!r}", f"{name} = {' or '.join(map(str, values))} only")
        fields = {ours: raw[theirs] for ours, theirs in self.fields.items() if theirs in raw}
        try:
            return msgspec.convert(fields | self.settings(raw, names), self.architecture.config, str_keys=True)
        except (TypeError, ArithmeticError) as error:  # a number was expected and is something else
            hint = "check the types of its settings"
            raise UnsupportedModel(f"config.json has a setting of another kind ({error})", hint) from error
        except msgspec.ValidationError as error:
            raise UnsupportedModel(
                f"config.json: {self._theirs(str(error))}", "check the folder's config.json"
            ) from error

    def completed(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """What config.json says under the family's own names, over what the library has where it says nothing."""
        kind = raw.get("model_type") or self.model_type
        if self.model_type and kind != self.model_type:
            refuse(f"sets model_type to {kind!r}, which is not that of its class", f"model_type = {self.model_type}")
        own = {name: value for name, value in raw.items() if name not in self.aliases}
        own |= {ours: raw[theirs] for theirs, ours in self.aliases.items() if raw.get(theirs) is not None}
        given = {name: value for name, value in own.items() if value is not None or name in NULLABLE}
        return {name: value for name, value in ({**self.older, **self.defaults} | given).items() if value is not None}

    def _theirs(self, message: str) -> str:
        """A message about fields, in config.json's words."""
        for ours, theirs in sorted(self.fields.items()):
            message = re.sub(rf"(?<![\w.]){ours}(?!\w)|(?<=\$\.){ours}(?!\w)|(?<=`){ours}(?=`)", theirs, message)
        return message

    def tensors(self, config: Any) -> Shapes:
        """Names and shapes of what a checkpoint must hold; what lies behind the pooling is called alike everywhere."""
        shapes, names = self.architecture.plain(config), self.names_of(config)
        stored = list(names.stored(self.architecture.layers(config), shapes))
        named = {part for _, _, wanted in stored for part in wanted}
        behind = {name: shapes[name] for name in shapes if name.startswith(EMBED) and name not in named}
        unnamed = shapes.keys() - behind.keys() - named
        if unnamed:
            refuse(f"asks for {min(unnamed)}", "this family without it")
        return {name: names.shape(module, wanted, shapes) for module, name, wanted in stored} | behind

    def stored_as(self, config: Any, parameter: str) -> str:
        """What a checkpoint calls the tensor that holds this parameter alone; nothing if there is none."""
        shapes = self.architecture.plain(config)
        stored = self.names_of(config).stored(self.architecture.layers(config), shapes)
        return next((name for _, name, wanted in stored if wanted == [parameter]), "")

    def names_of(self, config: Any) -> Names:
        """The names, which may depend on the config."""
        return self.variant(config) if self.variant else self.names

    def transposed(self, config: Any) -> set[str]:
        """The matrices that a checkpoint stores (in, out)."""
        names, shapes = self.names_of(config), self.architecture.plain(config)
        stored = names.stored(self.architecture.layers(config), shapes)
        return {name for module, name, _ in stored if module in names.transposed and name.endswith(".weight")}

    def fold(self, config: Any, state: Mapping[str, Tensor]) -> State:
        """At the owner: the parameters in a checkpoint's tensors."""
        shapes, names, plain = self.architecture.plain(config), self.names_of(config), State()
        for module, name, wanted in names.stored(self.architecture.layers(config), shapes):
            parts = names.parts(module, state[name], [shapes[w][0] for w in wanted], config.heads)
            plain |= zip(wanted, parts, strict=True)
        if names.offset:
            plain = {name: 1 + t if "norm" in name.rpartition(".")[0] else t for name, t in plain.items()}
        behind = (name for name in shapes if name.startswith(EMBED) and name not in plain)
        return self.architecture.fold(config, plain | {name: state[name] for name in behind})


def refuse(what: str, implemented: str) -> NoReturn:
    """Say which setting of config.json is not implemented."""
    raise UnsupportedModel(f"config.json {what}", f"puma implements {implemented}")


def chosen(raw: Mapping[str, Any], name: str, default: str, known: Mapping[str, str] = ACTIVATIONS) -> str:
    """The activation that a setting names."""
    value = raw.get(name, default)
    if value not in known:
        refuse(f"sets {name} to {value!r}", f"{name} = {' or '.join(known)} only")
    return known[value]


def labelled(raw: Mapping[str, Any]) -> list[str]:
    """The names of a head's classes, LABEL_ and its number for one without; two where config.json counts none.

    What a single one without a name gives is no class, but a score.
    """
    named = raw.get("id2label") or {}
    if not isinstance(named, dict) or not all(re.fullmatch(r"\d+", str(key)) for key in named):
        refuse("sets id2label to no object of numbers and names", "id2label = {number: name} only")
    labels = {int(key): label for key, label in named.items() if label is not None}
    count = len(named) or raw.get("num_labels", raw.get("_num_labels", 2))
    if not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_LABELS:
        refuse(f"sets num_labels to {count!r}", f"1 to {MOST_LABELS} only")
    found = [str(labels.get(number, f"LABEL_{number}")) for number in range(count)]
    return ["score"] if found == ["LABEL_0"] else found


def headed(task: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of the config for the head of a task, of one for classes of texts, tokens, answers or choices."""
    if task == "QuestionAnswering":
        if len(labelled(raw)) != len(SPAN):
            refuse(f"counts {len(labelled(raw))} labels", "answers with a start and an end only")
        return {"labels": SPAN, "each_token": True, "reading": {"asks": "span"}}
    if task == "TokenClassification":
        return {"labels": labelled(raw), "each_token": True}
    if task == "SequenceClassification":
        return {"labels": labelled(raw), "reading": _reading(raw)}
    if task == "MultipleChoice":
        return {"labels": ["score"], "reading": {"asks": "choice"}}
    return {"labels": NEXT_SENTENCE} if task == "NextSentencePrediction" else {}


def _reading(raw: Mapping[str, Any]) -> dict[str, Any]:
    """How scores follow from logits: as transformers' pipeline and sentence-transformers' CrossEncoder have it."""
    problem, nested = raw.get("problem_type"), raw.get("sentence_transformers")
    if problem is not None and problem not in PROBLEMS:
        refuse(f"sets problem_type to {problem!r}", f"problem_type = {' or '.join(PROBLEMS)} only")
    several = len(labelled(raw)) > 1
    scores = PROBLEMS[problem] if problem is not None and (several or problem == "regression") else ""
    nested = nested if isinstance(nested, dict) else {}
    named, worded = nested.get("activation_fn"), {name: nested[name] for name in WORDED if name in nested}
    named = named or raw.get("sbert_ce_default_activation_function")
    if not isinstance(named, str) or not named.startswith("torch."):  # the library runs no other code, either
        return {"scores": scores} | worded
    kind = named.rpartition(".")[2]
    if kind not in FUNCTIONS:
        refuse(f"names the activation {named}", f"{' or '.join(FUNCTIONS)} of torch.nn only")
    return {"scores": scores, "relevance": FUNCTIONS[kind]} | worded

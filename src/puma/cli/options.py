"""The options that several commands have in common, each described once.

It must not import torch, nor know what a command does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter


def _whole(_: object, tokens: Sequence[Any]) -> int:
    """Digits only: 1.5 tokens are a mistake, not two."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f"{tokens[0].value} is no whole number") from None


Flag = Annotated[bool, Parameter(negative="")]
Count = Annotated[int, Parameter(converter=_whole)]
Several = Annotated[tuple[str, ...], Parameter(negative="", consume_multiple=False)]
Profile = Literal["spline", "puma", "mpcformer"]
ClusterFile = Path("cluster.toml")
Key = Annotated[Path, Parameter(name="--as")]
End = Literal["eos"]


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How a command answers."""

    json: Flag = False
    """Print one JSON object on standard output, and nothing else."""

    debug: Flag = False
    """Show the stack of an error."""


HUMAN = Output()


@Parameter(name="*")
@dataclass(frozen=True)
class Chance:
    """How tokens are chosen, if not always the likeliest."""

    temperature: float | None = None
    """Draw tokens at random, the more evenly the higher this is; 0 for the likeliest."""

    top_k: Count | None = None
    """Only among so many likeliest tokens; needs logits."""

    top_p: float | None = None
    """Only among the likeliest that have this probability together; needs logits."""

    seed: Count | None = None
    """A number that makes the choice repeat; needs logits."""

    reveal_logits: Flag = False
    """As the owner of the model: let clients see logits."""

    @property
    def sampling(self) -> dict[str, Any]:
        """What was asked for, by name."""
        named = {"temperature": self.temperature, "top_k": self.top_k, "top_p": self.top_p, "seed": self.seed}
        return {name: value for name, value in named.items() if value is not None}


LIKELIEST = Chance()


@Parameter(name="*")
@dataclass(frozen=True)
class Spoken:
    """Languages, of models that translate."""

    begin: str = ""
    """Tokens that the answer begins with, such as the code of its language (fr_XX); of models with an encoder."""

    language: Annotated[str, Parameter(name="--from")] = ""
    """The code of the language that the prompt is in (de_DE), where it is not the one that the model's files name."""


UNSPOKEN = Spoken()


@Parameter(name="*")
@dataclass(frozen=True)
class Drafting:
    """Whether the client guesses how an answer goes on."""

    draft: str | None = None
    """lookup: guess from the text itself how the answer goes on, so that a step of the parties decides several tokens;
    or the folder of a small model of the same tokenizer, which guesses on this machine. The answer stays the same, and
    the parties learn how many guesses were right."""


NO_DRAFTS = Drafting()


@Parameter(name="*")
@dataclass(frozen=True)
class Fitting:
    """How number formats are made that follow the model."""

    calibrate: Path | None = None
    """The owner's own texts, with blank lines between, to see how large the model's numbers become, beside those that
    come with Puma; for an image model, the names of files."""

    margin: Count = 3
    """Bits between the largest number seen and what formats hold."""

    coarse: Flag = False
    """One format for all layers alike, so that the parties learn less about the model."""

    def settings(self, *approximations: str) -> Any:
        """The same for those who make the plan."""
        from puma.measure.examples import read_text
        from puma.reference.planning import Settings

        texts = read_text(self.calibrate, None, None) if self.calibrate is not None else []
        return Settings(self.margin, tuple(each.texts[0] for each in texts), self.coarse, approximations or ("spline",))


FITTED = Fitting()


@Parameter(name="*")
@dataclass(frozen=True)
class Worded:
    """How texts are put to a model for sentences, and what becomes of its vectors."""

    prompt_name: str | None = None
    """Which of the model's prompts goes before each text, such as query or document; its default one if left out."""

    prompt: str | None = None
    """A text of your own that goes before each instead."""

    truncate: Flag = False
    """Leave out what lies beyond the longest text that the model reads, instead of refusing it."""

    dimensions: Count | None = None
    """Keep so many numbers of each vector, the first ones."""

    normalize: Flag = False
    """Give each vector length one, whatever the model's folder says."""

    @property
    def asked(self) -> dict[str, Any]:
        """What was asked for, by name."""
        named = {"prompt_name": self.prompt_name, "prompt": self.prompt, "dimensions": self.dimensions}
        named |= {"truncate": self.truncate or None, "normalize": self.normalize or None}
        return {name: value for name, value in named.items() if value is not None}


AS_IT_IS = Worded()

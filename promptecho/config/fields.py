"""Field types shared by the configuration models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictStr
from pydantic.fields import FieldInfo

NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]*$"


def _no_bool(value: Any) -> Any:
    """YAML's `yes` is True, and Python's True is 1: neither is a number here."""
    if isinstance(value, bool):
        raise ValueError("expected a number, found a boolean")
    return value


def on_or_off(value: Any) -> Any:
    """YAML 1.1 reads `on` and `off` as true and false: of a choice that has these words, the words."""
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else value


Flag = StrictBool
Switch = Annotated[Literal["auto", "on", "off"], BeforeValidator(on_or_off)]
Text = Annotated[StrictStr, Field(min_length=1)]
Name = Annotated[str, Field(strict=True, pattern=NAME_PATTERN)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**63)]
Count = Annotated[int, Field(strict=True, ge=1)]
CountOrZero = Annotated[int, Field(strict=True, ge=0)]
# Not strict: YAML 1.1 reads `5e-5` (without a dot) as a string, and that string is a fine number.
Real = Annotated[float, BeforeValidator(_no_bool), Field(allow_inf_nan=False)]
Positive = Annotated[Real, Field(gt=0)]
NonNegative = Annotated[Real, Field(ge=0)]
Share = Annotated[Real, Field(ge=0, le=1)]
Decay = Annotated[Real, Field(ge=0, lt=1)]


def _as_mode(value: Any) -> Any:
    """Once it was a switch; and YAML reads a bare `off` as one."""
    return ("full" if value else "off") if isinstance(value, bool) else value


CheckpointingMode = Literal["off", "selective", "full"]  # from the most memory and least work on
Checkpointing = Annotated[
    Literal["auto", "off", "selective", "full"],
    BeforeValidator(_as_mode, json_schema_input_type=bool | Literal["auto", "off", "selective", "full"]),
]

OF_FAMILY = "A family from outside may have another default."
World = Literal["shapes", "gallery"]  # the embedded ones, docs/shapes.md
Schedule = Literal["pipeline", "scheduler"]
SCHEDULE = (
    "Where the sampler's times come from. pipeline: the family's diffusers pipeline (before the shift 1 down to "
    "1 / steps); scheduler: the scheduler's own spacing for so many steps, which for Z-Image ends closer to 0 (0.201, "
    "0.035, 0 with 30 steps in place of 0.300, 0.171, 0), as in the authors' Z-Image script."
)


class Section(BaseModel):
    """Base of all sections: unknown keys are errors, defaults are validated, values do not change."""

    model_config = ConfigDict(extra="forbid", validate_default=True, frozen=True, protected_namespaces=())

    @classmethod
    def written_fields(cls, ours_only: bool = False) -> dict[str, FieldInfo]:
        """The keys that may be written in it, for documents and for guesses; some depend on the plugins at hand, which
        `ours_only` leaves out."""
        return cls.model_fields

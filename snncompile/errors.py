"""What may go wrong, and the exit code that says so.

::

    SnncompileError      where / what / why / remedy               exit
      SheetError         a target or model sheet is wrong             3
      ReadError          the input cannot be read, or is not what
                         it says it is                                4
        UnsupportedModule   a torch module without a meaning here
        UnsupportedNode     a node of a file without a meaning here
      GraphError         dangling edge, shapes, loop without delay    5
      LoweringError      cannot be carried to this target             6
        DoesNotFit          more than the machine has
        NotRepresentable    the machine has no such thing
        LoopTooShort        a loop faster than the machine
      ToolError          the other interpreter is missing or failed   7
      Disagreement       verification found a difference              8
      BudgetExceeded     the energy gate                              1
      Incomparable       counts of different things: no verdict       9
    InternalError        ours; please report                         70

Exit code 2 is wrong usage of the command line, as everywhere.
"""

from __future__ import annotations

from typing import ClassVar


class SnncompileError(Exception):
    """A failure that its reader can act on.

    ``where`` names the thing (node, file, key), ``what`` is the finding, ``why`` the rule or the place it comes
    from, ``remedy`` what to do. The message reads ``where: what (why); remedy``.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, what: str, *, where: str = "", why: str = "", remedy: str = "") -> None:
        self.where, self.what, self.why, self.remedy = where, what, why, remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.why:
            text += f" ({self.why})"
        if self.remedy:
            text += f"; {self.remedy}"
        return text


class SheetError(SnncompileError):
    """A target or model sheet is wrong."""

    exit_code = 3


class ReadError(SnncompileError):
    """The input cannot be read, or is not what it says it is."""

    exit_code = 4


class UnsupportedModule(ReadError):
    """A torch module that has no meaning in the graph."""


class UnsupportedNode(ReadError):
    """A node of a file that has no meaning in the graph."""


class GraphError(SnncompileError):
    """The graph contradicts itself: dangling edges, shapes, loops without delay, a level's grammar."""

    exit_code = 5


class LoweringError(SnncompileError):
    """The graph cannot be carried to this target."""

    exit_code = 6


class DoesNotFit(LoweringError):
    """The graph needs more than the machine has."""


class NotRepresentable(LoweringError):
    """The machine has no such thing."""


class LoopTooShort(LoweringError):
    """A loop of the graph is faster than the machine's synapses."""


class ToolError(SnncompileError):
    """The other interpreter is missing or failed."""

    exit_code = 7


class Disagreement(SnncompileError):
    """Verification found a difference: the verdict."""

    exit_code = 8


class BudgetExceeded(SnncompileError):
    """The energy gate is closed."""

    exit_code = 1


class Incomparable(SnncompileError):
    """Two counts are of different things: there is no verdict, which is never a pass."""

    exit_code = 9


class InternalError(Exception):
    """Ours, not the user's: please report it, with the graph as text."""

    exit_code: ClassVar[int] = 70

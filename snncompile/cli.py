"""The command line: which verbs there are, what they take, and how an error leaves the program.

Results go to standard output, the log to standard error. Nothing heavy is imported here: each verb imports its own
file in ``commands/`` when it is called, so that ``snncompile --help`` answers at once.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import io
import math
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any, NoReturn

from snncompile import __version__
from snncompile.commands.console import let_go_of_output, plain, prepare_streams
from snncompile.errors import InternalError, ReadError, SnncompileError

EXITS = """\
exit codes: 0 done; 1 energy gate closed; 2 wrong usage; 3 a sheet is wrong; 4 a file cannot be read or written; 5 the
graph contradicts itself; 6 cannot be carried to the target; 7 Lava's interpreter is missing or failed; 8 verification
found a difference; 9 two counts do not compare; 70 our fault; 130 interrupted. `snncompile VERB --help` says what a
verb takes."""

DATA = (
    "data set NAME[:split[:count]] (fashion-mnist:test:256), or an .npz, .npy or .nir (NIR data) file;"
    " several inputs: by name"
)


NIR = (
    "what a .nir leaves open: r=step|written (of I and IF), start=zero|reset|leak (the potential), loop=NODE+NODE (that"
    " hear a loop a step late), current=new|old (of CubaLIF), fires=gt|ge, reset=value|subtract,"
    " input=spike|signed|count:MOST, steps=T (that an image is shown), readout=sum|mean|last (of an output that reads"
    " weights), metadata=use|ignore"
)


class _Parser(argparse.ArgumentParser):
    """argparse, with the closest verb or option in the message."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Refuses what is left over here, where the verb's own options are known, and not at the top."""
        known, rest = super().parse_known_args(args, namespace)
        if rest:
            self.error("unrecognized arguments: " + " ".join(rest), rest[0])
        return known, rest

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            name = "/".join(action.option_strings) or action.metavar or action.dest
            known = [str(choice) for choice in action.choices]
            self.error(f"argument {name}: no {value!r}; one of {', '.join(known)}", str(value), known)

    def error(self, message: str, wrong: str = "", known: Sequence[str] = ()) -> NoReturn:
        options = [option for action in self._actions for option in action.option_strings]
        close = difflib.get_close_matches(wrong.partition("=")[0], known or options, n=1)
        hint = f"did you mean {close[0]}?" if close else f"see `{self.prog} --help`"
        self.exit(2, f"{self.prog}: {message}; {hint}\n")


def _seconds(text: str) -> float:
    """A time limit: positive and finite."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")


def _jobs(text: str) -> int:
    """A number of processes."""
    if text.isdecimal() and 1 <= int(text[:4]) <= 999:
        return int(text[:4])
    raise argparse.ArgumentTypeError(f"{text!r} is no number of processes from 1 to 999")


def _name(text: str) -> str:
    """The name of a file or of data. An empty one is a variable that was not set, and must not mean "none"."""
    if text:
        return text
    raise argparse.ArgumentTypeError("an empty name")


def _length(text: str) -> float:
    """A step: positive and finite."""
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no length of time above 0")


def parser() -> argparse.ArgumentParser:
    """The whole grammar of the command line."""
    top = _Parser(
        prog="snncompile",
        description="A deployment compiler for spiking neural networks: it proves that the spikes are the same.",
        epilog=EXITS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"snncompile {__version__}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=_Parser)
    for add in (_train, _export, _run, _simulate, _verify, _energy, _show, _targets, _models):
        add(verbs)
    return top


Verbs = argparse._SubParsersAction  # argparse has no public name for it


def _verb(verbs: Verbs[_Parser], name: str, summary: str, *, data: bool = False) -> argparse.ArgumentParser:
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=summary, description=summary)
    verb.add_argument("--format", choices=("table", "json"), default="table", help="how the result is printed")
    verb.add_argument("-q", "--quiet", action="store_true", help="no log on standard error")
    verb.add_argument("--debug", action="store_true", help="show the traceback of an error")
    if data:
        verb.add_argument("--data", type=_name, metavar="D", help=DATA + "; default: the sample in the checkpoint")
        _root(verb)
    return verb


def _root(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--data-root", metavar="DIR", help="folder of the data sets (default: $SNNCOMPILE_DATA)")


def _resume(verb: argparse.ArgumentParser, unit: str) -> None:
    what = f"keep the {unit} that are done in FILE, and go on from it where there is one; a finished run removes it"
    verb.add_argument("--resume", type=_name, metavar="FILE", help=what)


def _lowering(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("-t", "--target", default="loihi", help="a name of `snncompile targets`, or ./mychip.toml")
    verb.add_argument(
        "--board", metavar="B", help="a board of the target (default: the smallest that holds the network)"
    )
    verb.add_argument("--calibration", metavar="D", help="data to choose scales on (default: the checkpoint's sample)")
    verb.add_argument(
        "--per-channel", action="store_true", help="a scale for each range of channels: finer, for more populations"
    )
    verb.add_argument(
        "--equilibrium",
        action="store_true",
        help="let feedback arrive later than trained where the machine's loops are longer: rates stay, spikes do not",
    )
    _nir(verb)


def _nir(verb: argparse.ArgumentParser) -> None:
    """What a .nir leaves open; the words of --nir are in ``frontends/nir_options.py``."""
    semantics = ("euler", "exact", "loihi", "sinabs")
    verb.add_argument(
        "--nir-semantics", choices=semantics, help="how the equations of a .nir become steps of a simulation"
    )
    verb.add_argument("--dt", type=_length, metavar="DT", help="how long a step is, in the unit of time of a .nir")
    verb.add_argument("--nir", metavar="KEY=VALUE,...", type=_nir_words, help=NIR)


def _nir_words(text: str) -> str:
    """What ``--nir`` says, looked through; the reader of the file takes it as it is."""
    from snncompile.frontends.nir_options import parse

    try:
        parse(None, None, text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _train(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "train", "train a network by a recipe")
    verb.add_argument("recipe", help="a name of `snncompile models`, or a recipe ./mynet.toml")
    verb.add_argument("-o", "--output", required=True, metavar="CKPT", help="where the checkpoint goes")
    verb.add_argument("--quantise", metavar="T", help="train in the integers of this target, after the reals")
    verb.add_argument("--from", dest="start", metavar="CKPT", help="a trained checkpoint in reals to begin with")
    verb.add_argument("--resume", action="store_true", help="go on after the last finished epoch")
    verb.add_argument("--force", action="store_true", help="replace a checkpoint that is there already")
    verb.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu", help="where it is trained (cpu)")
    verb.add_argument("--compile", action="store_true", help="neurons as kernels of torch.compile (TET, IDSNN)")
    verb.add_argument("--tensorboard", metavar="DIR", help="write curves for TensorBoard into this folder")
    verb.add_argument("--download", action="store_true", help="fetch the data set where it is not there yet")
    _root(verb)


def _export(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "export", "lower to a target, prove every level, write the bundle", data=True)
    verb.add_argument("model", help="a checkpoint, a .nir, or a network.net of lava-dl")
    _lowering(verb)
    verb.add_argument("-o", "--output", required=True, metavar="DIR", help="where the bundle goes")
    _resume(verb, "rungs of the proof")
    verb.add_argument("--no-verify", action="store_true", help="write the bundle unproven; its manifest says so")
    _device(verb)
    verb.add_argument("--float", action="store_true", dest="reals", help="ONNX: the folded network in float32")
    verb.add_argument(
        "--nir-profile", default="canonical", metavar="P", help="NIR: whose readers (canonical, unit-r, snntorch ...)"
    )
    verb.add_argument("--soft-reset", choices=("graph",), help="NIR: write a soft reset as a loop of nodes")
    verb.add_argument("--scan", action="store_true", help="ONNX: a loop over any number of steps in the file")
    verb.add_argument("--force", action="store_true", help="replace a bundle that is there already")


def _device(verb: argparse.ArgumentParser) -> None:
    what = "what executes the program (default: what the target's sheet names)"
    verb.add_argument("--device", choices=("lava", "onnx"), help=what)


def _run(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "run", "execute a bundle on its device's software", data=True)
    verb.add_argument("bundle", help="a folder that `export` wrote")
    verb.add_argument("--trace", metavar="FILE", help="write spikes and potentials to this .npz or .nir (NIR data)")
    verb.add_argument("--timeout", type=_seconds, metavar="S", help="give up after so many seconds")


def _simulate(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "simulate", "the chip's integers on this CPU, fast", data=True)
    verb.add_argument("model", help="a checkpoint, a .nir, a bundle, or a network.net of lava-dl")
    _lowering(verb)
    what = "write spikes and potentials of every population to this .npz or .nir (NIR data)"
    verb.add_argument("--trace", metavar="FILE", help=what)
    what = "share the samples out to so many processes (default: 1); the result is the same"
    verb.add_argument("-j", "--jobs", type=_jobs, default=1, metavar="N", help=what)
    _resume(verb, "counts of samples")


def _verify(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "verify", "the ladder of one model, or the first divergence of two artifacts", data=True)
    level = "a checkpoint (PATH@torch, read, folded, fixed, timed, placed, cpu, lava), a .nir, a bundle, or a trace"
    verb.add_argument("artifact", nargs="+", metavar="A", help=level)
    _lowering(verb)
    _device(verb)
    _resume(verb, "rungs of a ladder")


def _energy(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "energy", "exact AC and MAC counts, priced; gates CI", data=True)
    verb.epilog = (
        "Other verbs: `snncompile energy reprice`, `energy diff`, `energy explain`; a file so named is ./diff."
    )
    verb.add_argument("model", help="a checkpoint, a .nir or a bundle")
    _lowering(verb)
    levels = ("torch", "read", "folded", "fixed", "timed", "placed")
    verb.add_argument("--level", choices=levels, help="whose spikes are counted (default: folded)")
    _resume(verb, "counts of samples")
    _prices(verb)
    verb.add_argument(
        "--static-input", choices=("recompute", "cache"), default="recompute", help="how an unchanged input is met"
    )
    verb.add_argument("--zero-skip", action="store_true", help="count no MAC for an analog value of zero")
    verb.add_argument("--multiplicity", choices=("unary", "graded"), default="unary", help="what a sum of k spikes is")
    verb.add_argument(
        "--budget", type=_name, metavar="F", help="fail where a limit of this snncompile.toml does not hold"
    )
    verb.add_argument("--baseline", type=_name, metavar="F", help="fail where a count is above this energy.lock.json")
    verb.add_argument("--update-baseline", action="store_true", help="write the baseline instead of testing it")
    _reports(verb)
    verb.add_argument("--junit", type=_name, metavar="F", help="write a JUnit XML of every limit")
    verb.add_argument("--benchmark", type=_name, metavar="F", help="write the JSON that github-action-benchmark reads")
    reprice = _verb(verbs, "energy reprice", "a report under another price list, without running anything")
    reprice.add_argument("report", help="a JSON report of `snncompile energy -o`")
    _prices(reprice)
    _reports(reprice)
    diff = _verb(verbs, "energy diff", "two reports, layer by layer")
    diff.add_argument("left", help="a JSON report of `snncompile energy -o`")
    diff.add_argument("right", help="another one")
    explain = _verb(verbs, "energy explain", "the formula of a layer's energy, its operands filled in")
    explain.add_argument("report", help="a JSON report of `snncompile energy -o`")
    explain.add_argument("layer", help="a layer of it")
    explain.add_argument("--cost-model", type=_name, metavar="M", help="another price list than the report's")


def _prices(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "--cost-model", default="horowitz45", metavar="M", help="a sheet of `snncompile targets`, or a file"
    )
    verb.add_argument(
        "--also", type=_name, metavar="LIST", help="published conventions: rate-flops,tet,syops,neurobench"
    )
    verb.add_argument("-o", "--output", type=_name, metavar="FILE", help="write the JSON report here as well")


def _reports(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--markdown", type=_name, metavar="F", help="write the report as Markdown")
    verb.add_argument("--html", type=_name, metavar="F", help="write the report as one HTML page")


def _show(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "show", "graph, numbers and cores of any artifact")
    verb.add_argument("artifact", help="a checkpoint, a .nir, a bundle, a network.net of lava-dl or a trace")
    _lowering(verb)
    levels = ("read", "folded", "fixed", "timed", "placed")
    verb.add_argument("--level", choices=levels, help="of a checkpoint (default: read)")
    _root(verb)
    verb.add_argument("--text", action="store_true", help="the graph in the text form that parses")


def _targets(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "targets", "the catalogue of machines and price lists")
    verb.add_argument("name", nargs="?", help="show every figure of this sheet with its source")


def _models(verbs: Verbs[_Parser]) -> None:
    verb = _verb(verbs, "models", "the catalogue of recipes")
    verb.add_argument("name", nargs="?", help="show this recipe")


def _of_two_words(words: Sequence[str]) -> list[str]:
    """``energy diff A B`` names the verb ``energy diff``: its first two words are one."""
    if len(words) > 1 and words[0] == "energy" and words[1] in ("reprice", "diff", "explain"):
        return [f"{words[0]} {words[1]}", *words[2:]]
    return list(words)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code, unless this is one of several processes: then it ends here."""
    code = _code(argv)
    if (processes := sys.modules.get("snncompile.train.processes")) is not None:
        processes.end(code)
    return code


def _code(argv: Sequence[str] | None) -> int:
    prepare_streams()
    options = parser().parse_args(_of_two_words(sys.argv[1:] if argv is None else argv))
    _escape_what_cannot_be_shown()
    try:
        _end_as_interrupted()
        verb = importlib.import_module(f"snncompile.commands.{options.verb.replace(' ', '_')}")
        code: int = verb.run(options)
        if sys.stdout is not None:  # it was closed before we came
            sys.stdout.flush()
        return code
    except SnncompileError as error:
        if options.debug:
            raise
        _say(f"snncompile {options.verb}: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say(f"snncompile {options.verb}: interrupted; nothing was left half written")
        return 130
    except BrokenPipeError:  # the reader of our output has seen enough
        let_go_of_output()
        return 0
    except OSError as error:  # a full disk, no permission, a name too long: the system's words say it
        if options.debug:
            raise
        let_go_of_output()
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error)
        _say(f"snncompile {options.verb}: {what}")
        return ReadError.exit_code
    except (InternalError, Exception) as error:
        if options.debug:
            raise
        kind = "" if isinstance(error, InternalError) else f"{type(error).__name__}: "
        _say(f"snncompile {options.verb}: internal error: {kind}{error}")
        _say("this is our fault: please report it, with the output of the same command and --debug")
        return InternalError.exit_code


def _say(line: str) -> None:
    """The last word, where somebody listens: the exit code must not change because nobody does.

    What files and their names hold is shown, not obeyed: no letter of it steers a terminal.
    """
    line = "".join(letter if letter.isprintable() or letter == "\n" else repr(letter)[1:-1] for letter in line)
    with contextlib.suppress(OSError):
        print(plain(line), file=sys.stderr, flush=True)


def _escape_what_cannot_be_shown() -> None:
    """A letter that the output's encoding lacks, in the name of a file, say, must not cost the result."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _end_as_interrupted() -> None:
    """A request to end (SIGTERM) cleans up as Ctrl-C does; by default Python would end on the spot."""

    def stop(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)

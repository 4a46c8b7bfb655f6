"""What a step of a NIR network is: its length, its dialect, how its equations become differences.

With tau dv/dt = (v_leak - v) + r I, and I held for a step of length dt, the potential of our neurons is
``v[t] = rest + (1 - beta) (w[t-1] - rest) + gain x[t]``::

    euler    beta = dt / tau                          gain = r beta
    exact    beta = 1 - exp(-dt / tau)                gain = r beta
    loihi    beta = rint(4096 dt / tau) / 4096        gain = r dt / tau         Euler, decays as the chip holds them
    sinabs   beta = 1 - exp(-1 / tau)                 gain = 1                  tau counts steps

I and IF: beta = 0, gain = r dt. The format says none of this, and files differ in what r says:

* ``r = tau/dt`` (canonical, SpikingJelly, snnTorch): tau / r is one number in all leaky nodes. It is dt, and an Euler
  step has the gain 1: beta = 1 / r, so that the numbers give a decay of float32 to the last bit.
* ``r = 1`` (Norse, Nengo, most published files): nothing says dt.
* ``r = 1/dt`` of I and IF; with ``r = 1`` readers differ between "per unit of time" and "per step".
* anything else is a resistance, as written.

What the file leaves open is asked for, never assumed; ``Time.notes`` say what was found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.fixed import Reals
from snncompile.frontends.nir_options import Options
from snncompile.frontends.nir_record import Node

LEAKY = {"LI": "tau", "LIF": "tau", "CubaLI": "tau_mem", "CubaLIF": "tau_mem"}
INTEGRATING = ("I", "IF")
CLOSE = 1e-6
"""Relative: what float32 numbers of one meaning may differ by."""
GRID = 4096
"""A decay of Loihi is a multiple of 1/4096."""
MOST_STEPS = 1 << 20  # of a delay


@dataclass(frozen=True)
class Leak:
    """Of every neuron: ``beta``, and the ``gain`` of what arrives in one step."""

    beta: Reals
    gain: Reals


@dataclass
class Time:
    """What was decided. ``dialect``: of r in leaky nodes; ``open``: (what is open, what would say it)."""

    options: Options
    semantics: str = "euler"
    dt: float | None = None
    dialect: str = "none"
    per_step: bool = False
    notes: list[str] = field(default_factory=list)
    open: list[tuple[str, str]] = field(default_factory=list)

    def demand(self, where: str) -> None:
        """Raise ``ReadError`` with everything that is open, and what would say it."""
        if self.open:
            what = "; ".join(dict.fromkeys(reason for reason, _ in self.open))
            remedy = "say " + " ".join(dict.fromkeys(word for _, word in self.open))
            raise ReadError(f"leaves open: {what}", where=where, why="readers differ", remedy=remedy)

    def leak(self, node: Node, tau_key: str = "", r_key: str = "r") -> Leak:
        """Of a node that leaks, or integrates (no ``tau_key``)."""
        r = node.reals(r_key)
        if not tau_key:
            return Leak(np.zeros(()), self._integrated(r))
        tau = _positive(node, tau_key)
        if self.semantics == "sinabs":
            return Leak(-np.expm1(-1.0 / tau), np.ones(()))
        if self.dialect == "r = tau/dt" and self.semantics != "exact":
            return Leak(self._on_grid(inverse(r)), np.ones(()))
        step = self._step(node, tau, tau_key)
        beta = -np.expm1(-step) if self.semantics == "exact" else step
        return Leak(self._on_grid(beta), r * beta)

    def current(self, node: Node) -> Leak:
        """Of the synaptic current of CubaLI and CubaLIF: alpha, and what 1 that arrives adds to the current."""
        tau, w_in = _positive(node, "tau_syn"), node.reals("w_in", 1.0)
        if self.dialect == "r = tau/dt" and self.semantics != "exact" and self.dt is not None:
            with np.errstate(divide="ignore"):
                if np.all(np.abs(w_in * self.dt / tau - 1.0) < CLOSE):
                    return Leak(self._on_grid(inverse(w_in)), np.ones(()))
        step = self._step(node, tau, "tau_syn")
        alpha = -np.expm1(-step) if self.semantics == "exact" else step
        return Leak(self._on_grid(alpha), w_in * alpha)

    def coupled(self, node: Node) -> tuple[Reals, Reals]:
        """CubaLIF, exact: what a step adds to the potential of what arrives now, and of what arrived the step before.

        With a, b the decays of current and potential, and K what a current of 1 leaves in the potential a step later::

            I[t] = a I[t-1] + (1 - a) w_in x[t],   v[t] = b v[t-1] + r K I[t-1] + r ((1 - b) - K) w_in x[t]

        which is the current ``u[t] = a u[t-1] + now x[t] + before x[t-1]`` of our neurons.
        """
        assert self.dt is not None
        syn, mem = _positive(node, "tau_syn"), _positive(node, "tau_mem")
        r, w_in = node.reals("r"), node.reals("w_in", 1.0)
        a, b = np.exp(-self.dt / syn), np.exp(-self.dt / mem)
        with np.errstate(divide="ignore", invalid="ignore"):
            left = np.where(syn == mem, self.dt / mem * b, syn / (syn - mem) * (a - b))
        now = r * w_in * (-np.expm1(-self.dt / mem) - left)
        return now, r * left * w_in * -np.expm1(-self.dt / syn) - a * now

    def _step(self, node: Node, tau: Reals, key: str) -> Reals:
        assert self.dt is not None
        step = np.asarray(self.dt / tau)
        if self.semantics != "exact" and np.any(step > 1.0 + CLOSE):
            why = f"dt = {self.dt:g}, {key} = {tau.min():g}: a step would overshoot"
            raise node.fail("leaks in less than a step", why, "a shorter --dt, or --nir-semantics exact")
        return np.minimum(step, 1.0) if self.semantics != "exact" else step

    def _on_grid(self, beta: Reals) -> Reals:
        return np.rint(beta * GRID) / GRID if self.semantics == "loihi" else beta

    def _integrated(self, r: Reals) -> Reals:
        if self.semantics == "sinabs":
            return np.ones(())
        if self.per_step or self.dt is None:
            return r
        return np.ones(()) if np.all(np.abs(r * self.dt - 1.0) < CLOSE) else r * self.dt

    def steps(self, node: Node) -> Reals:
        """A delay in steps. Raises ``ReadError`` unless that is a whole number."""
        delay = node.reals("delay")
        if np.any(delay < 0):
            raise node.fail(f"its delay is {delay.min():g}")
        if not np.any(delay):
            return delay
        assert self.dt is not None
        if delay.max() > self.dt * MOST_STEPS:
            raise node.fail(f"its delay is {delay.max():g}", f"dt = {self.dt:g}; {MOST_STEPS:,} steps are read")
        steps = delay / self.dt
        whole = np.rint(steps)
        if np.any(np.abs(steps - whole) > CLOSE * np.maximum(1.0, steps)):
            wrong = delay.flat[int(np.argmax(np.abs(steps - whole)))]
            why = f"dt = {self.dt:g}"
            raise node.fail(f"its delay {wrong:g} is no whole number of steps", why, "another --dt")
        return whole


def settle_time(nodes: Mapping[str, Node], options: Options, where: str) -> Time:
    """Decide what follows from the file and the options. Raises ``ReadError`` where they contradict each other."""
    time = Time(options, options.semantics or "euler", options.dt)
    if options.semantics == "sinabs":
        _settle_sinabs(nodes, time, where)
        return time
    leaky = [node for node in nodes.values() if node.kind in LEAKY]
    if leaky:
        _settle_leaky(leaky, time, where)
    integrating = [node for node in nodes.values() if node.kind in INTEGRATING]
    if integrating:
        _settle_integrating(integrating, time)
    late = [node for node in nodes.values() if node.kind == "Delay" and np.any(node.reals("delay"))]
    if late and time.dt is None:
        time.open.append(("the length of a step, in which delays are counted", "--dt DT"))
    return time


def _settle_leaky(leaky: list[Node], time: Time, where: str) -> None:
    pairs = [_tau_and_r(node) for node in leaky]
    tau, r = (np.concatenate([pair[which] for pair in pairs]) for which in (0, 1))
    options = time.options
    if np.all(r == 1.0):
        time.dialect = "r = 1"
    elif options.r != "written" and np.all(r > 1.0 - CLOSE) and np.ptp(tau / r) <= CLOSE * (tau / r).max():
        implied = shortest(float(np.median(tau / r)))
        if options.dt is not None and abs(options.dt / implied - 1.0) > CLOSE:
            raise ReadError(
                f"its r = tau/dt says dt = {implied:g}, --dt says {options.dt:g}",
                where=where,
                remedy=f"--dt {implied:g}, or `--nir r=written` where r is a resistance and no more",
            )
        time.dialect, time.dt = "r = tau/dt", options.dt or implied
        time.notes.append(f"r = tau/dt: a step is {time.dt:g}" + ("" if options.semantics else ", of Euler"))
        return
    else:
        time.dialect = "r as written"
    told = "r = 1: nothing in the file says" if time.dialect == "r = 1" else "r is a resistance: nothing says"
    time.notes.append(f"dialect {time.dialect}")
    if options.semantics is None:
        choices = "--nir-semantics euler|exact|loihi" + ("|sinabs" if time.dialect == "r = 1" else "")
        time.open.append((f"{told} how its equations become steps", choices))
    if options.dt is None:
        time.open.append((f"{told} the length of a step", "--dt DT"))


def _tau_and_r(node: Node) -> tuple[Reals, Reals]:
    tau, r = _positive(node, LEAKY[node.kind]), node.reals("r")
    try:
        one, other = np.broadcast_arrays(tau, r)
    except ValueError:
        raise node.fail(f"its tau is {list(tau.shape)}, its r {list(r.shape)}") from None
    return one.ravel(), other.ravel()


def _settle_integrating(integrating: list[Node], time: Time) -> None:
    r = np.concatenate([node.reals("r").ravel() for node in integrating])
    options = time.options
    alone = time.dialect == "none"
    if options.r == "step":
        time.per_step = True
        time.notes.append("r of I and IF counts per step")
    elif time.dt is None and not alone:
        pass  # --dt is asked for already
    elif time.dt is None and options.r is None and np.all(r == r[0]) and r[0] > 1.0:
        time.dialect, time.dt = "r = 1/dt", shortest(float(1.0 / r[0]))
        time.notes.append(f"r = 1/dt: a step is {time.dt:g}")
    elif time.dt is None and np.all(r == 1.0) and options.r is None:
        time.open.append(("r = 1 of I and IF: per step, or per unit of time", "`--nir r=step` or --dt DT"))
    elif time.dt is None:
        time.open.append(("the length of a step", "--dt DT"))
    elif np.all(np.abs(r * time.dt - 1.0) < CLOSE):
        time.notes.append("r = 1/dt in I and IF")
    elif np.any(r == 1.0) and time.dt != 1.0 and options.r is None:
        time.open.append(
            (
                f"r = 1 of I and IF: per step, or per unit of time (dt is {time.dt:g})",
                "`--nir r=step` or `--nir r=written`",
            )
        )


def _settle_sinabs(nodes: Mapping[str, Node], time: Time, where: str) -> None:
    if time.dt is not None:
        raise ReadError("sinabs has no --dt", where=where, why="its tau counts steps", remedy="leave --dt out")
    time.dialect, time.dt = "tau in steps", 1.0
    time.notes.append("sinabs: tau counts steps, r and v_reset are not looked at; it resets by the threshold, at >=")
    for node in nodes.values():
        if node.kind in ("CubaLI", "CubaLIF", "I"):
            raise UnsupportedNode("sinabs has none", where=node.where, remedy="another --nir-semantics")
        if node.kind in ("LI", "LIF") and np.any(node.reals("v_leak", 0.0)):
            raise node.fail("its v_leak is not 0", "sinabs refuses it")
    if any(node.kind in ("LIF", "IF") for node in nodes.values()):
        time.notes.append("one spike a step at most: sinabs sends more where a potential reaches twice the threshold")
    if any(node.kind == "IF" for node in nodes.values()):
        time.notes.append("no floor: sinabs keeps the potential of an IF from falling below -threshold")


def shortest(value: float) -> float:
    """The number with the fewest digits that is as good as ``value``: what its writer said before it was rounded."""
    return next(
        (short for digits in range(1, 17) if abs((short := float(f"{value:.{digits}g}")) - value) <= CLOSE / 4 * value),
        value,
    )


def inverse(r: Reals) -> Reals:
    """``beta = 1 / r``; where the decay ``1 - beta`` is a number of float32 but for two roundings, it was that one."""
    beta = 1.0 / r
    decay = (1.0 - beta).astype(np.float32).astype(np.float64)
    return np.where(np.abs((1.0 - beta) - decay) <= 2.0**-51, 1.0 - decay, beta)


def _positive(node: Node, key: str) -> Reals:
    value = node.reals(key)
    if not value.size or np.any(value <= 0):
        raise node.fail(f"its {key} is {value.min():g}" if value.size else f"its {key} is empty", "a time is above 0")
    return value

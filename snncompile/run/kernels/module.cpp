// The engine as Python sees it. Arrays are checked for type and order here; what they mean is said in run/compiled.py.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <optional>

#include "bits.hpp"
#include "dispatch.hpp"
#include "engine.hpp"

namespace nb = nanobind;

namespace {

using Integers = nb::ndarray<const int64_t, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<const uint8_t, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<const int32_t, nb::c_contig, nb::device::cpu>;
using Spikes = nb::ndarray<uint8_t, nb::c_contig, nb::device::cpu>;
using Potentials = nb::ndarray<int64_t, nb::c_contig, nb::device::cpu>;
using Packed = nb::ndarray<uint64_t, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const uint64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::vector<std::string> names() {
    std::vector<std::string> found;
    for (const snn::Kernels *kernels : snn::available()) found.emplace_back(kernels->name);
    return found;
}

int integer(const nb::dict &from, const char *name) { return nb::cast<int>(from[name]); }

snn::Rules rules(const nb::dict &given) {
    snn::Rules made;
    made.fraction = integer(given, "fraction");
    made.decay_bits = integer(given, "decay_bits");
    made.floor = nb::cast<bool>(given["floor"]);
    made.current = static_cast<snn::Decay>(integer(given, "current"));
    made.potential = static_cast<snn::Decay>(integer(given, "potential"));
    made.current_shift = integer(given, "current_shift");
    made.potential_shift = integer(given, "potential_shift");
    made.current_checked = nb::cast<bool>(given["current_checked"]);
    made.potential_checked = nb::cast<bool>(given["potential_checked"]);
    made.current_wraps = nb::cast<bool>(given["current_wraps"]);
    made.potential_wraps = nb::cast<bool>(given["potential_wraps"]);
    made.current_top = nb::cast<int64_t>(given["current_top"]);
    made.potential_top = nb::cast<int64_t>(given["potential_top"]);
    made.soft = nb::cast<bool>(given["soft"]);
    return made;
}

int add_population(snn::Engine &engine, int signal, int tile, bool wide, bool readout, int phase, const nb::dict &given,
                   const std::vector<Integers> &parameters) {
    std::vector<snn::Values> values;
    for (const Integers &one : parameters) values.push_back({one.data(), static_cast<int>(one.shape(0))});
    return engine.population(signal, tile, wide, readout, phase, rules(given), values);
}

void connect(snn::Engine &engine, int population, const nb::dict &given, const Integers &weights,
             const std::optional<Integers> &reach) {
    snn::Connection way;
    way.form = static_cast<snn::Form>(integer(given, "form"));
    way.source = integer(given, "source");
    way.first = integer(given, "first"), way.channels = integer(given, "channels");
    way.lane = integer(given, "lane"), way.lanes = integer(given, "lanes");
    way.events = integer(given, "events");
    way.delay = integer(given, "delay");
    way.shift = integer(given, "shift");
    way.flush = integer(given, "flush");
    const auto pair = [&](const char *name) { return nb::cast<std::array<int, 2>>(given[name]); };
    const auto kernel = pair("kernel"), stride = pair("stride"), padding = pair("padding"), dilation = pair("dilation");
    way.kernel_y = kernel[0], way.kernel_x = kernel[1];
    way.stride_y = stride[0], way.stride_x = stride[1];
    way.padding_y = padding[0], way.padding_x = padding[1];
    way.dilation_y = dilation[0], way.dilation_x = dilation[1];
    engine.connect(population, way,
                   {weights.data(), static_cast<int>(weights.shape(0)), static_cast<int>(weights.shape(1)),
                    static_cast<int>(weights.shape(2))},
                   nb::cast<bool>(given["matrix"]),
                   reach ? std::vector<uint32_t>(reach->data(), reach->data() + reach->size()) : std::vector<uint32_t>());
}

void run(snn::Engine &engine, const std::vector<std::tuple<int, std::optional<Bytes>, std::optional<Words>, bool>> &given,
         const std::vector<std::tuple<int, std::optional<Spikes>, std::optional<Potentials>, std::optional<Packed>,
                                  std::optional<Potentials>>> &kept,
         int samples, int steps, int machine_steps, bool stepwise, int batch, int threads) {
    std::vector<snn::Given> inputs;
    for (const auto &[signal, spikes, values, constant] : given)
        inputs.push_back({signal, spikes ? spikes->data() : nullptr, values ? values->data() : nullptr, constant});
    std::vector<snn::Kept> outputs;
    for (const auto &[population, spikes, potentials, words, numbers] : kept)
        outputs.push_back({population, spikes ? spikes->data() : nullptr, potentials ? potentials->data() : nullptr,
                           words ? words->data() : nullptr, numbers ? numbers->data() : nullptr});
    nb::gil_scoped_release released;
    engine.run(inputs, outputs, samples, steps, machine_steps, stepwise, batch, threads, [] {
        nb::gil_scoped_acquire held;
        if (PyErr_CheckSignals()) throw nb::python_error();
    });
}

void met(const Rows &words, const Rows &masks, const Potentials &found) {
    if (masks.shape(1) != words.shape(1) || found.size() != masks.shape(0) * words.shape(0))
        throw nb::value_error("masks as long as the words, and a number for each of both");
    snn::met(words.data(), words.shape(0), words.shape(1), masks.data(), masks.shape(0), found.data());
}

void ever_and_always(const Rows &words, const Packed &ever, const Packed &always) {
    if (ever.size() != words.shape(1) || always.size() != words.shape(1)) throw nb::value_error("rows as long as the words");
    snn::ever_and_always(words.data(), words.shape(0), words.shape(1), ever.data(), always.data());
}

}  // namespace

NB_MODULE(_kernels, m) {
    nb::set_leak_warnings(false);  // a simulator that is alive when the interpreter ends is no fault
    m.doc() = "The compiled engine: see snncompile/run/compiled.py and docs/simulation.md.";
    m.def("available", &names, "Instruction sets that this processor has, best first.");
    m.def("met", &met, nb::arg("words"), nb::arg("masks"), nb::arg("found"), "Bits that rows and masks have in common.");
    m.def("ever_and_always", &ever_and_always, nb::arg("words"), nb::arg("ever"), nb::arg("always"),
          "Bits that are set in any row, and in all.");
    nb::class_<snn::Engine>(m, "Engine")
        .def(nb::init<const std::string &>(), nb::arg("kernels"))
        .def_prop_ro("block", &snn::Engine::block)
        .def_prop_ro("widest", &snn::Engine::widest)
        .def("signal", &snn::Engine::signal, nb::arg("height"), nb::arg("width"), nb::arg("channels"))
        .def(
            "events",
            [](snn::Engine &engine, int source, int first, int channels, const std::array<int, 2> &kernel,
               const std::array<int, 2> &stride, const std::array<int, 2> &padding, const std::array<int, 2> &spread, bool maximum, int height, int width) {
                const snn::Pool pool = {kernel[0],  kernel[1],  stride[0], stride[1], padding[0],
                                        padding[1], spread[0], spread[1], maximum};
                return engine.events(source, first, channels, pool, height, width);
            },
            nb::arg("source"), nb::arg("first"), nb::arg("channels"), nb::arg("kernel"), nb::arg("stride"), nb::arg("padding"), nb::arg("spread"),
            nb::arg("maximum"), nb::arg("height"), nb::arg("width"))
        .def("population", &add_population, nb::arg("signal"), nb::arg("tile"), nb::arg("wide"), nb::arg("readout"),
             nb::arg("phase"), nb::arg("rules"), nb::arg("parameters"))
        .def("connect", &connect, nb::arg("population"), nb::arg("given"), nb::arg("weights"),
             nb::arg("reach").none())
        .def("run", &run, nb::arg("given"), nb::arg("kept"), nb::arg("samples"), nb::arg("steps"),
             nb::arg("machine_steps"), nb::arg("stepwise"), nb::arg("batch"), nb::arg("threads"))
        .def_prop_ro("fired", [](const snn::Engine &engine) { return engine.fired; })
        .def_rw("products", &snn::Engine::products, "Products in the time of one weight of an event; 0 and infinity decide.")
        .def_ro("visit", &snn::Engine::visit, "Weights of events added in the time that coming to a tile takes.")
        .def_ro("multiplied", &snn::Engine::multiplied, "Populations (and steps) that were multiplied out in the last run.")
        .def_prop_ro("features", &snn::Engine::features, "Populations that took their steps as features in the last run.")
        .def(
            "cost",
            [](const snn::Engine &engine, int population, int samples, int steps) {
                const snn::Cost found = engine.cost(population, samples, steps);
                return std::make_tuple(found.made, found.added, found.visits);
            },
            nb::arg("population"), nb::arg("samples"), nb::arg("steps"),
            "Products, weights added and visits to tiles that so many samples and steps are expected to take.")
        .def("operations", [](const snn::Engine &engine, int population, int connection) {
            return engine.operations.at(static_cast<size_t>(engine.first_connection.at(population) + connection));
        });
}

// Networks that ``benchmarks/recorded.py`` wrote down, run on every instruction set of this processor and compared.
//
//     replay FILE [KERNELS] [ROUNDS]     KERNELS: only these; ROUNDS: how often each network runs
//
// A file is a stream of int64: for each network its calls to the engine, one of them the run with what must come out.
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <vector>

#include "dispatch.hpp"
#include "engine.hpp"

namespace {

enum Call : int64_t { make = 0, signal_ = 1, events = 2, population = 3, connect = 4, run = 5 };

struct Reader {
    const int64_t *at, *end;
    int64_t next() {
        if (at >= end) {
            std::fprintf(stderr, "the file ends too early\n");
            std::exit(2);
        }
        return *at++;
    }
    int number() { return static_cast<int>(next()); }
    const int64_t *array(int64_t count) {
        const int64_t *begin = at;
        at += count;
        return begin;
    }
};

snn::Rules rules(Reader &in) {
    snn::Rules made;
    made.fraction = in.number(), made.decay_bits = in.number(), made.floor = in.next();
    made.current = static_cast<snn::Decay>(in.next()), made.potential = static_cast<snn::Decay>(in.next());
    made.current_shift = in.number(), made.potential_shift = in.number();
    made.current_checked = in.next(), made.potential_checked = in.next();
    made.current_wraps = in.next(), made.potential_wraps = in.next();
    made.current_top = in.next(), made.potential_top = in.next();
    made.soft = in.next();
    return made;
}

void add_population(Reader &in, snn::Engine &engine) {
    const int signal = in.number(), tile = in.number(), wide = in.number(), readout = in.number(), phase = in.number();
    const snn::Rules made = rules(in);
    std::vector<snn::Values> values;
    for (int index = 0; index < 6; ++index) {
        const int pixels = in.number();
        const int64_t count = in.next();
        values.push_back({in.array(count), pixels});
    }
    engine.population(signal, tile, wide, readout, phase, made, values);
}

void add_connection(Reader &in, snn::Engine &engine) {
    const int target = in.number();
    snn::Connection way;
    way.form = static_cast<snn::Form>(in.next());
    way.source = in.number(), way.first = in.number(), way.channels = in.number();
    way.lane = in.number(), way.lanes = in.number(), way.events = in.number(), way.delay = in.number();
    way.shift = in.number(), way.flush = in.number();
    const bool matrix = in.next();
    for (int *value : {&way.kernel_y, &way.kernel_x, &way.stride_y, &way.stride_x, &way.padding_y, &way.padding_x,
                       &way.dilation_y, &way.dilation_x})
        *value = in.number();
    const int pixels = in.number(), rows = in.number(), channels = in.number();
    const int64_t *weights = in.array(static_cast<int64_t>(pixels) * rows * channels);
    const int64_t reached = in.next();
    const int64_t *reach = in.array(reached);
    engine.connect(target, way, {weights, pixels, rows, channels}, matrix, std::vector<uint32_t>(reach, reach + reached));
}

bool same(const char *what, int population, const int64_t *found, const int64_t *expected, int64_t count) {
    for (int64_t at = 0; at < count; ++at)
        if (found[at] != expected[at]) {
            std::printf("population %d, %s %lld: %lld instead of %lld\n", population, what, static_cast<long long>(at),
                        static_cast<long long>(found[at]), static_cast<long long>(expected[at]));
            return false;
        }
    return true;
}

bool run_and_compare(Reader &in, snn::Engine &engine, int threads, int rounds) {
    const int samples = in.number(), steps = in.number(), machine_steps = in.number(), stepwise = in.number();
    const int batch = in.number();
    std::vector<std::unique_ptr<std::vector<uint8_t>>> bytes;
    std::vector<std::unique_ptr<std::vector<int32_t>>> words;
    std::vector<std::unique_ptr<std::vector<int64_t>>> numbers;
    std::vector<snn::Given> given;
    for (int64_t left = in.next(); left; --left) {
        const int signal = in.number(), spikes = in.number(), constant = in.number();
        const int64_t count = in.next();
        const int64_t *values = in.array(count);
        bytes.push_back(std::make_unique<std::vector<uint8_t>>(values, values + (spikes ? count : 0)));
        words.push_back(std::make_unique<std::vector<int32_t>>(values, values + (spikes ? 0 : count)));
        given.push_back({signal, spikes ? bytes.back()->data() : nullptr, spikes ? nullptr : words.back()->data(),
                         constant != 0});
    }
    std::vector<snn::Kept> kept;
    std::vector<const int64_t *> expected_spikes, expected_potentials;
    std::vector<int64_t> sizes;
    for (int64_t left = in.next(); left; --left) {
        const int index = in.number(), fires = in.number();
        const int64_t count = in.next();
        expected_potentials.push_back(in.array(count));
        expected_spikes.push_back(fires ? in.array(count) : nullptr);
        bytes.push_back(std::make_unique<std::vector<uint8_t>>(fires ? count : 0));
        numbers.push_back(std::make_unique<std::vector<int64_t>>(count));
        kept.push_back({index, fires ? bytes.back()->data() : nullptr, numbers.back()->data(), nullptr, nullptr});
        sizes.push_back(count);
    }
    const int64_t populations = in.next();
    const int64_t *fired = in.array(populations);
    const int64_t connections = in.next();
    const int64_t *operations = in.array(connections);
    for (int round = 0; round < rounds; ++round)
        engine.run(given, kept, samples, steps, machine_steps, stepwise, batch, threads, [] {});
    bool equal = true;
    for (size_t one = 0; one < kept.size(); ++one) {
        equal &= same("potential", kept[one].population, kept[one].potentials, expected_potentials[one], sizes[one]);
        if (!kept[one].spikes) continue;
        const std::vector<int64_t> spikes(kept[one].spikes, kept[one].spikes + sizes[one]);
        equal &= same("spike", kept[one].population, spikes.data(), expected_spikes[one], sizes[one]);
    }
    equal &= same("spikes counted, place", 0, engine.fired.data(), fired, populations);
    return equal & same("operations of connection", 0, engine.operations.data(), operations, connections);
}

// Every network of the file; how many are not as they should be.
int replay(const std::vector<int64_t> &content, const std::string &kernels, int threads, int rounds, int &networks) {
    Reader in = {content.data(), content.data() + content.size()};
    std::unique_ptr<snn::Engine> engine;
    int different = 0;
    networks = 0;
    while (in.at < in.end) switch (in.next()) {
            case make:
                engine = std::make_unique<snn::Engine>(kernels);
                ++networks;
                break;
            case signal_: {
                const int height = in.number(), width = in.number();
                engine->signal(height, width, in.number());
                break;
            }
            case events: {
                const int source = in.number(), first = in.number(), channels = in.number();
                snn::Pool pool;
                for (int *value : {&pool.kernel_y, &pool.kernel_x, &pool.stride_y, &pool.stride_x, &pool.padding_y,
                                   &pool.padding_x, &pool.spread_y, &pool.spread_x})
                    *value = in.number();
                pool.maximum = in.next();
                const int height = in.number();
                engine->events(source, first, channels, pool, height, in.number());
                break;
            }
            case population: add_population(in, *engine); break;
            case connect: add_connection(in, *engine); break;
            case run:
                if (run_and_compare(in, *engine, threads, rounds)) break;
                std::printf("network %d differs: kernels %s, %d threads\n", networks, kernels.c_str(), threads);
                ++different;
                break;
            default: std::fprintf(stderr, "no such call\n"); std::exit(2);
        }
    return different;
}

}  // namespace

int main(int count, char **words) {
    if (count < 2) return std::fprintf(stderr, "replay FILE [KERNELS] [ROUNDS]\n"), 2;
    std::ifstream file(words[1], std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const auto *begin = reinterpret_cast<const int64_t *>(bytes.data());
    const std::vector<int64_t> content(begin, begin + bytes.size() / 8);
    const std::string only = count > 2 ? words[2] : "";
    const int rounds = count > 3 ? std::atoi(words[3]) : 1;
    int different = 0;
    for (const snn::Kernels *kernels : snn::available()) {
        if (!only.empty() && only != kernels->name) continue;
        for (const int threads : {1, 3}) {
            if (threads > 1 && count > 3) continue;
            int networks = 0;
            const int wrong = replay(content, kernels->name, threads, rounds, networks);
            std::printf("%s, %d threads: %d networks, %d differ\n", kernels->name, threads, networks, wrong);
            different += wrong;
        }
    }
    return different != 0;
}

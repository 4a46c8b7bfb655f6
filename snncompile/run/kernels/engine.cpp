#include "engine.hpp"

#include <cstdlib>
#include <cstring>
#include <new>
#include <stdexcept>

#include "dispatch.hpp"
#include "pack.hpp"

namespace snn {

uint8_t *Memory::reserve(size_t bytes) {
    if (bytes > size_) {
        data_.reset();
        size_ = 0;  // nothing, should there be no memory
        const size_t whole = (bytes + bytes / 4 + 127) / 64 * 64;
        void *memory = nullptr;
        if (posix_memalign(&memory, 64, whole)) throw std::bad_alloc();
        data_.reset(static_cast<uint8_t *>(memory));
        size_ = whole;
    }
    return data_.get();
}

constexpr int LONGEST = 1 << 15;  // pixels and steps of a piece: an interrupt waits for no more

Engine::Engine(const std::string &kernels) : kernels_(nullptr) {
    for (const Kernels *known : available())
        if (kernels == known->name) kernels_ = known;
    if (!kernels_) throw std::invalid_argument("this processor has no kernels " + kernels);
}

int Engine::signal(int height, int width, int channels) {
    Signal made;
    made.height = height;
    made.width = width;
    made.channels = channels;
    made.words = (channels + 63) / 64;
    signals_.push_back(made);
    return static_cast<int>(signals_.size()) - 1;
}

int Engine::events(int source, const Pool &pool, int height, int width) {
    Events made;
    made.source = source;
    made.pool = pool;
    made.height = height;
    made.width = width;
    events_.push_back(made);
    return static_cast<int>(events_.size()) - 1;
}

int Engine::population(int signal, int tile, bool wide, bool readout, int phase, const Rules &rules,
                       const std::vector<Values> &parameters) {
    Population made;
    made.signal = signal;
    made.tile = tile;
    made.tiles = (signals_[signal].channels + tile - 1) / tile;
    made.wide = wide;
    made.readout = readout;
    made.phase = phase;
    made.rules = rules;
    const int channels = signals_[signal].channels, padded = made.padded();
    Parameter *places[] = {&made.alpha, &made.beta, &made.bias, &made.threshold, &made.reset, &made.initial};
    for (int index = 0; index < 6; ++index) {
        const Values &given = parameters[index];
        const size_t size = wide ? 8 : 4;
        owned_.push_back(std::make_unique<Memory>());
        uint8_t *data = owned_.back()->reserve(static_cast<size_t>(given.pixels) * padded * size);
        // neurons that only fill a tile up never fire
        const int64_t filling = index == 3 ? (wide ? INT64_MAX : INT32_MAX) : 0;
        for (int pixel = 0; pixel < given.pixels; ++pixel)
            for (int channel = 0; channel < padded; ++channel) {
                const int64_t value =
                    channel < channels ? given.data[static_cast<size_t>(pixel) * channels + channel] : filling;
                const size_t at = static_cast<size_t>(pixel) * padded + channel;
                if (wide)
                    reinterpret_cast<int64_t *>(data)[at] = value;
                else
                    reinterpret_cast<int32_t *>(data)[at] = static_cast<int32_t>(value);
            }
        places[index]->data = data;
        places[index]->stride = given.pixels == 1 ? 0 : padded;
    }
    populations_.push_back(made);
    connections_.emplace_back();
    return static_cast<int>(populations_.size()) - 1;
}

void Engine::connect(int population, Connection way, const Weights &weights, const std::vector<uint32_t> &reach) {
    const Population &target = populations_[population];
    way.row_bytes = row_bytes(way.form, target.tile, target.wide);
    const size_t rows = static_cast<size_t>(weights.rows) * way.row_bytes;
    way.pixel_bytes = weights.pixels == 1 ? 0 : rows;
    way.tile_bytes = rows * weights.pixels;
    owned_.push_back(std::make_unique<Memory>());
    uint8_t *data = owned_.back()->reserve(way.tile_bytes * target.tiles);
    pack(weights, way.form, target.tile, target.tiles, target.wide, kernels_->block, data);
    way.weights = data;
    if (!reach.empty()) {
        owned_.push_back(std::make_unique<Memory>());
        auto *counts = reinterpret_cast<uint32_t *>(owned_.back()->reserve(reach.size() * 4));
        std::memcpy(counts, reach.data(), reach.size() * 4);
        way.reach = counts;
    }
    connections_[population].push_back(way);
}

// Room of one thread: the stretches and counts of a piece, and the state of a sample that goes step by step.
struct Engine::Worker {
    std::vector<Span> spans;
    std::vector<int> ends;
    std::vector<int64_t> counts;
    std::vector<Memory> current, potential;
};

void Engine::prepare(int batch, int steps, int machine_steps, bool stepwise) {
    network_ = {signals_.data(), events_.data(), populations_.data(), batch, steps};
    masks_.resize(signals_.size());
    values_.resize(signals_.size());
    for (Population &population : populations_) {
        Signal &signal = signals_[population.signal];
        signal.steps = stepwise ? machine_steps : steps;
        if (!population.readout)
            signal.masks = reinterpret_cast<uint64_t *>(masks_[population.signal].reserve(
                static_cast<size_t>(batch) * signal.steps * signal.pixels() * signal.words * 8));
    }
    lists_.resize(events_.size());
    list_memory_.resize(events_.size());
    starts_.resize(events_.size());
    for (size_t index = 0; index < events_.size(); ++index) {
        Events &events = events_[index];
        events.held = signals_[events.source].steps;
        const size_t every = static_cast<size_t>(batch) * events.held;
        const size_t starts = static_cast<size_t>(events.height) * events.width + 1;
        lists_[index].resize(every);
        if (list_memory_[index].size() < every) list_memory_[index].resize(every);
        auto *memory = reinterpret_cast<uint32_t *>(starts_[index].reserve(every * starts * 4));
        for (size_t at = 0; at < every; ++at) lists_[index][at].starts = memory + at * starts;
        events.steps = lists_[index].data();
    }
    for (size_t index = 0; index < populations_.size(); ++index) {
        populations_[index].connections = connections_[index].data();
        populations_[index].count = static_cast<int>(connections_[index].size());
    }
}

// Bytes of 0 or 1 as bits, eight at a time: the product puts byte i at bit 56 + i, and no two terms meet in a bit.
static void mask_of_bytes(const uint8_t *from, int count, uint64_t *to) {
    for (int at = 0; at < count; at += 8) {
        uint64_t eight = 0;
        std::memcpy(&eight, from + at, count - at < 8 ? count - at : 8);
        to[at / 64] |= (eight * 0x0102040810204080u) >> 56 << (at % 64);
    }
}

// An input's numbers as the kernels read them: channels of a pixel side by side.
void Engine::take_in(const Given &input, int first, int count, int steps, Workers &workers) {
    Signal &signal = signals_[input.signal];
    const size_t pixels = signal.pixels(), size = pixels * signal.channels, held = input.constant ? 1 : steps;
    const size_t every = static_cast<size_t>(count) * held;
    if (input.spikes) {
        const size_t words = pixels * signal.words;
        std::memset(signal.masks, 0, every * words * 8);
        workers.each(static_cast<int>(every), [&](int at, int) {
            const uint8_t *from = input.spikes + (static_cast<size_t>(first) * held + at) * size;
            uint64_t *to = signal.masks + at * words;
            if (pixels == 1) {
                mask_of_bytes(from, signal.channels, to);
                return;
            }
            for (int channel = 0; channel < signal.channels; ++channel)
                for (size_t pixel = 0; pixel < pixels; ++pixel)
                    to[pixel * signal.words + channel / 64] |= static_cast<uint64_t>(*from++ != 0) << (channel % 64);
        });
        return;
    }
    auto *values = const_cast<int32_t *>(signal.values);
    for (size_t at = 0; at < every; ++at) {
        const int32_t *from = input.values + (static_cast<size_t>(first) * held + at) * size;
        int32_t *to = values + at * size;
        for (int channel = 0; channel < signal.channels; ++channel)
            for (size_t pixel = 0; pixel < pixels; ++pixel) to[pixel * signal.channels + channel] = *from++;
    }
}

void Engine::list(int index, int sample, int step) {
    Events &events = events_[index];
    const Signal &source = signals_[events.source];
    const uint64_t *mask = source.mask(sample, step);
    size_t spikes = 0;
    for (size_t word = 0; word < static_cast<size_t>(source.pixels()) * source.words; ++word)
        spikes += static_cast<size_t>(__builtin_popcountll(mask[word]));
    const Pool &pool = events.pool;
    const auto windows = [](int kernel, int stride) { return (kernel + stride - 1) / stride; };  // that a pixel is in
    const size_t most = spikes * windows(pool.kernel_y, pool.stride_y) * windows(pool.kernel_x, pool.stride_x) + 64;
    Memory &memory = list_memory_[index][static_cast<size_t>(sample) * events.held + step];
    events.at(sample, step).events = reinterpret_cast<uint32_t *>(memory.reserve(most * 4));
    kernels_->list(network_, events, sample, step);
}

void Engine::settle(const Piece &piece, int first) {
    const Population &population = populations_[piece.population];
    __atomic_fetch_add(&fired[piece.population], piece.fired, __ATOMIC_RELAXED);
    for (int index = 0; index < population.count; ++index) {
        int64_t *total = operations[first_connection[piece.population] + index].data();
        total += static_cast<size_t>(first + piece.sample) * network_.steps;
        for (int step = 0; step < network_.steps; ++step)
            if (const int64_t count = piece.operations[static_cast<size_t>(index) * network_.steps + step])
                __atomic_fetch_add(total + step, count, __ATOMIC_RELAXED);
    }
}

// Population after population, all steps of each at once: nothing here depends on itself.
void Engine::by_layers(int count, int first, Workers &workers, std::vector<Worker> &rooms) {
    std::vector<bool> listed(events_.size());
    for (size_t index = 0; index < populations_.size(); ++index) {
        const Population &population = populations_[index];
        for (const Connection &way : connections_[index]) {
            if (way.events < 0 || listed[way.events]) continue;
            listed[way.events] = true;
            const int held = events_[way.events].held;
            workers.each(count * held, [&](int item, int) { list(way.events, item / held, item % held); });
        }
        const Signal &signal = signals_[population.signal];
        // for one thread whole maps, unless many steps make them long to wait for; for several, pieces enough to share
        const int pixels = signal.pixels(), wanted = workers.count() == 1 ? 1 : 4 * workers.count();
        const int whole = count * population.tiles, cut = whole >= wanted ? 1 : (wanted + whole - 1) / whole;
        const int shared = (pixels + cut - 1) / cut, soon = 1 + LONGEST / signal.steps;
        const int rows = shared < soon ? shared : soon, cuts = (pixels + rows - 1) / rows;
        workers.each(whole * cuts, [&](int item, int worker) {
            Worker &room = rooms[worker];
            Piece piece;
            piece.population = static_cast<int>(index);
            piece.tile = item / (count * cuts);
            piece.sample = item / cuts % count;
            piece.begin = item % cuts * rows;
            piece.end = piece.begin + rows < pixels ? piece.begin + rows : pixels;
            piece.last = signal.steps;
            piece.spans = room.spans.data();
            piece.ends = room.ends.data();
            piece.operations = room.counts.data();
            std::memset(room.counts.data(), 0, sizeof(int64_t) * population.count * network_.steps);
            kernels_->advance(network_, piece);
            settle(piece, first);
        });
    }
}

// Step after step, all populations in each: for loops. Samples are independent, each worker takes whole ones.
void Engine::by_steps(int count, int first, int machine_steps, Workers &workers, std::vector<Worker> &rooms) {
    workers.each(count, [&](int sample, int worker) {
        Worker &room = rooms[worker];
        room.current.resize(populations_.size());
        room.potential.resize(populations_.size());
        std::vector<std::vector<int64_t>> counts(populations_.size());
        for (size_t index = 0; index < populations_.size(); ++index) {
            const Population &population = populations_[index];
            const size_t state = static_cast<size_t>(signals_[population.signal].pixels()) * population.padded() * 8;
            std::memset(room.current[index].reserve(state), 0, state);
            std::memset(room.potential[index].reserve(state), 0, state);
            counts[index].assign(static_cast<size_t>(population.count) * network_.steps, 0);
        }
        std::vector<int64_t> spikes(populations_.size());
        for (int step = 0; step < machine_steps; ++step) {
            if (step % 64 == 0) workers.look(worker);
            for (size_t index = 0; index < events_.size(); ++index)
                if (from_input_[events_[index].source] && step < events_[index].held)
                    list(static_cast<int>(index), sample, step);
            for (size_t index = 0; index < populations_.size(); ++index) {
                const Population &population = populations_[index];
                Piece piece;
                piece.population = static_cast<int>(index);
                piece.sample = sample;
                piece.end = signals_[population.signal].pixels();
                piece.first = step;
                piece.last = step + 1;
                piece.current = room.current[index].get();
                piece.potential = room.potential[index].get();
                piece.spans = room.spans.data();
                piece.ends = room.ends.data();
                piece.operations = counts[index].data();
                for (piece.tile = 0; piece.tile < population.tiles; ++piece.tile) kernels_->advance(network_, piece);
                spikes[index] += piece.fired;
                for (const int events : readers_[population.signal]) list(events, sample, step);
            }
        }
        for (size_t index = 0; index < populations_.size(); ++index) {
            Piece piece;
            piece.population = static_cast<int>(index);
            piece.sample = sample;
            piece.operations = counts[index].data();
            piece.fired = spikes[index];
            settle(piece, first);
        }
    });
}

void Engine::leave(const Kept &kept, int first, int count, Workers &workers) {
    if (!kept.spikes) return;
    const Population &population = populations_[kept.population];
    const Signal &signal = signals_[population.signal];
    const size_t pixels = signal.pixels(), size = pixels * signal.channels;
    workers.each(count * network_.steps, [&](int item, int) {
        const int sample = item / network_.steps, step = item % network_.steps;
        const uint64_t *mask = signal.mask(sample, step + population.phase);
        uint8_t *to = kept.spikes + (static_cast<size_t>(first + sample) * network_.steps + step) * size;
        for (int channel = 0; channel < signal.channels; ++channel)
            for (size_t pixel = 0; pixel < pixels; ++pixel)
                *to++ = mask[pixel * signal.words + channel / 64] >> (channel % 64) & 1;
    });
}

void Engine::run(const std::vector<Given> &given, const std::vector<Kept> &kept, int samples, int steps, int machine_steps,
                 bool stepwise, int batch, int threads, const std::function<void()> &pause) {
    batch = batch < samples ? batch : samples;
    from_input_.assign(signals_.size(), false);
    values_.resize(signals_.size());
    masks_.resize(signals_.size());
    for (const Given &input : given) {
        Signal &signal = signals_[input.signal];
        const size_t every = static_cast<size_t>(batch) * (input.constant ? 1 : steps);
        from_input_[input.signal] = true;
        signal.steps = steps;
        signal.constant = input.constant;
        signal.masks = nullptr;
        signal.values = nullptr;
        if (input.spikes)
            signal.masks =
                reinterpret_cast<uint64_t *>(masks_[input.signal].reserve(every * signal.pixels() * signal.words * 8));
        else
            signal.values = reinterpret_cast<int32_t *>(
                values_[input.signal].reserve(every * signal.pixels() * signal.channels * 4));
    }
    prepare(batch, steps, machine_steps, stepwise);
    readers_.assign(signals_.size(), {});
    for (size_t index = 0; index < events_.size(); ++index)
        readers_[events_[index].source].push_back(static_cast<int>(index));
    fired.assign(populations_.size(), 0);
    operations.clear();
    first_connection.clear();
    size_t spans = 0, most = 0;
    for (size_t index = 0; index < populations_.size(); ++index) {
        first_connection.push_back(static_cast<int>(operations.size()));
        size_t own = 0;
        for (const Connection &way : connections_[index]) {
            own += static_cast<size_t>(way.kernel_y) * way.kernel_x;
            operations.emplace_back(static_cast<size_t>(samples) * steps);
        }
        spans = own > spans ? own : spans;
        most = connections_[index].size() > most ? connections_[index].size() : most;
    }
    Workers workers(threads, pause);
    std::vector<Worker> rooms(threads);
    for (Worker &room : rooms) {
        room.spans.resize(spans + 1);
        room.ends.resize(most + 1);
        room.counts.resize(most * steps + 1);
    }
    for (int first = 0; first < samples; first += batch) {
        const int count = batch < samples - first ? batch : samples - first;
        for (const Given &input : given) take_in(input, first, count, steps, workers);
        for (Population &population : populations_) population.potentials = nullptr;
        for (const Kept &one : kept)
            if (one.potentials) {
                Population &population = populations_[one.population];
                population.potentials =
                    one.potentials + static_cast<size_t>(first) * steps * signals_[population.signal].pixels() *
                                         signals_[population.signal].channels;
            }
        if (stepwise)
            by_steps(count, first, machine_steps, workers, rooms);
        else
            by_layers(count, first, workers, rooms);
        for (const Kept &one : kept) leave(one, first, count, workers);
    }
}

}  // namespace snn

// A network run: memory, what goes in, what is counted, what is left behind.
#include <cstring>

#include "engine.hpp"

namespace snn {

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
    std::vector<bool> listed(events_.size());  // features list their events where they add them
    for (size_t index = 0; index < populations_.size(); ++index) {
        populations_[index].connections = connections_[index].data();
        populations_[index].count = static_cast<int>(connections_[index].size());
        populations_[index].features = stepwise && has_features(static_cast<int>(index));
        for (const Connection &way : connections_[index])
            if (way.events >= 0 && !populations_[index].features) listed[way.events] = true;
    }
    lists_.resize(events_.size());
    list_memory_.resize(events_.size());
    starts_.resize(events_.size());
    for (size_t index = 0; index < events_.size(); ++index) {
        Events &events = events_[index];
        events.held = listed[index] ? signals_[events.source].steps : 0;
        const size_t every = static_cast<size_t>(batch) * events.held;
        const size_t starts = static_cast<size_t>(events.height) * events.width + 1;
        lists_[index].resize(every);
        if (list_memory_[index].size() < every) list_memory_[index].resize(every);
        auto *memory = reinterpret_cast<uint32_t *>(starts_[index].reserve(every * starts * 4));
        for (size_t at = 0; at < every; ++at) lists_[index][at].starts = memory + at * starts;
        events.steps = lists_[index].data();
    }
}

// An input's numbers as the kernels read them: channels of a pixel side by side.
void Engine::take_in(const Given &input, int first, int count, int steps, Workers &workers) {
    Signal &signal = signals_[input.signal];
    const size_t pixels = signal.pixels(), size = pixels * signal.channels, held = input.constant ? 1 : steps;
    const size_t every = static_cast<size_t>(count) * held;
    if (input.spikes) {
        workers.each(count, [&](int sample, int) { take_spikes(input, first, sample, 1); });
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

// The spikes of samples [sample, sample + samples) of the batch that begins with ``first``.
void Engine::take_spikes(const Given &input, int first, int sample, int samples) {
    const Signal &signal = signals_[input.signal];
    const size_t pixels = signal.pixels(), size = pixels * signal.channels, held = signal.steps;
    int64_t spikes = 0;
    for (size_t at = sample * held; at < (sample + samples) * held; ++at)
        spikes += kernels_->take(signal, input.spikes + (first * held + at) * size, signal.masks + at * pixels * signal.words);
    seen(input.signal, spikes, static_cast<int64_t>(samples * held * size));
}

void Engine::forget_lists(int first, int count) {
    for (Events &events : events_)
        for (int at = first * events.held; at < (first + count) * events.held; ++at) events.steps[at].ready = false;
}

// The list of one step, unless it is there already.
void Engine::list(int index, int sample, int step) {
    Events &events = events_[index];
    if (events.at(sample, step).ready) return;
    events.at(sample, step).ready = true;
    const Signal &source = signals_[events.source];
    const uint64_t *mask = source.mask(sample, step);
    const size_t spikes = static_cast<size_t>(kernels_->count(mask, static_cast<size_t>(source.pixels()) * source.words));
    const Pool &pool = events.pool;
    const auto windows = [](int kernel, int stride) { return (kernel + stride - 1) / stride; };  // that a pixel is in
    const size_t most = spikes * windows(pool.kernel_y, pool.stride_y) * windows(pool.kernel_x, pool.stride_x) + 64;
    Memory &memory = list_memory_[index][static_cast<size_t>(sample) * events.held + step];
    events.at(sample, step).events = reinterpret_cast<uint32_t *>(memory.reserve(most * 4));
    kernels_->list(network_, events, sample, step);
}

void Engine::seen(int signal, int64_t spikes, int64_t places) {
    __atomic_fetch_add(&spikes_[signal], spikes, __ATOMIC_RELAXED);
    __atomic_fetch_add(&places_[signal], places, __ATOMIC_RELAXED);
}

// What a piece has counted.
void Engine::settle(const Piece &piece) {
    const Population &population = populations_[piece.population];
    __atomic_fetch_add(&fired[piece.population], piece.fired, __ATOMIC_RELAXED);
    for (int index = 0; index < population.count; ++index)
        if (piece.operations[index])
            __atomic_fetch_add(&operations[first_connection[piece.population] + index], piece.operations[index],
                               __ATOMIC_RELAXED);
}

// Each byte with its bits in the other order.
static uint64_t first_highest(uint64_t word) {
    word = (word & 0x5555555555555555u) << 1 | (word >> 1 & 0x5555555555555555u);
    word = (word & 0x3333333333333333u) << 2 | (word >> 2 & 0x3333333333333333u);
    return (word & 0x0f0f0f0f0f0f0f0fu) << 4 | (word >> 4 & 0x0f0f0f0f0f0f0f0fu);
}

void Engine::leave(const Kept &kept, int first, int count, Workers &workers) {
    if (!kept.spikes) return;
    const Population &population = populations_[kept.population];
    const Signal &signal = signals_[population.signal];
    const size_t pixels = signal.pixels(), size = pixels * signal.channels;
    Signal flat;  // the spikes as they are left: one pixel of that many channels
    flat.channels = static_cast<int>(size);
    flat.words = static_cast<int>((size + 63) / 64);
    workers.each(count * network_.steps, [&](int item, int) {
        const int sample = item / network_.steps, step = item % network_.steps;
        const uint64_t *mask = signal.mask(sample, step + population.phase);
        const size_t line = static_cast<size_t>(first + sample) * network_.steps + step;
        uint8_t *const left = kept.spikes + line * size, *to = left;
        for (int channel = 0; channel < signal.channels; ++channel)
            for (size_t pixel = 0; pixel < pixels; ++pixel)
                *to++ = mask[pixel * signal.words + channel / 64] >> (channel % 64) & 1;
        if (!kept.words || !kept.numbers) return;
        uint64_t *words = kept.words + line * flat.words;
        kept.numbers[line] = kernels_->take(flat, left, words);  // while the bytes are at hand
        for (int word = 0; word < flat.words; ++word) words[word] = first_highest(words[word]);
    });
}

void Engine::run(const std::vector<Given> &given, const std::vector<Kept> &kept, int samples, int steps, int machine_steps,
                 bool stepwise, int batch, int threads, const std::function<void()> &pause) {
    batch = batch < samples ? batch : samples;
    spikes_.assign(signals_.size(), 0);
    places_.assign(signals_.size(), 0);
    multiplied = 0;
    values_.resize(signals_.size());
    masks_.resize(signals_.size());
    for (const Given &input : given) {
        Signal &signal = signals_[input.signal];
        const size_t every = static_cast<size_t>(batch) * (input.constant ? 1 : steps);
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
    fired.assign(populations_.size(), 0);
    operations.clear();
    first_connection.clear();
    size_t spans = 0, most = 0;
    for (size_t index = 0; index < populations_.size(); ++index) {
        first_connection.push_back(static_cast<int>(operations.size()));
        size_t own = 0;
        for (const Connection &way : connections_[index]) {
            own += static_cast<size_t>(way.kernel_y) * way.kernel_x;
            operations.push_back(0);
        }
        spans = own > spans ? own : spans;
        most = connections_[index].size() > most ? connections_[index].size() : most;
    }
    // threads are kept from run to run: what starts anew may start on the core that is busy
    if (!workers_ || workers_->count() != threads || !workers_->is_here()) {
        workers_.reset();
        workers_.reset(new Workers(threads));
    }
    Workers &workers = *workers_;
    workers.ask(pause);
    if (rooms_.size() < static_cast<size_t>(threads)) rooms_.resize(threads);
    for (Worker &room : rooms_) {
        room.spans.resize(spans + 1);
        room.ends.resize(most + 1);
        room.counts.resize(most + 1);
        room.planes.resize(most);
        room.views.resize(most);
    }
    for (int first = 0; first < samples; first += batch) {
        const int count = batch < samples - first ? batch : samples - first;
        for (const Given &input : given)
            if (!input.spikes || !stepwise) take_in(input, first, count, steps, workers);
        for (Population &population : populations_) population.potentials = nullptr;
        for (const Kept &one : kept)
            if (one.potentials) {
                Population &population = populations_[one.population];
                population.potentials =
                    one.potentials + static_cast<size_t>(first) * steps * signals_[population.signal].pixels() *
                                         signals_[population.signal].channels;
            }
        if (stepwise)
            by_steps(given, first, count, machine_steps, workers);
        else
            by_layers(count, workers);
        for (const Kept &one : kept) leave(one, first, count, workers);
    }
}

}  // namespace snn

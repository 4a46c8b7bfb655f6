// Step after step, all populations in each: for loops, and for delays that reach back before a phase.
#include <algorithm>
#include <cstring>

#include "engine.hpp"

namespace snn {

namespace {

constexpr int most_together = 64;        // samples that take a step together: what the weights are read for once
constexpr int most_shared = 32;          // the same for several threads, of which none is to wait long for the others
constexpr int most_listed = 16;          // and without tiles: events use weights once, and state is to stay in the cache
constexpr size_t most_state = 16 << 20;  // bytes of their state
constexpr int soon = 8;                  // steps: an interrupt waits for no more

bool is_one(const Pool &pool) {
    return pool.kernel_y * pool.kernel_x * pool.stride_y * pool.stride_x * pool.spread_y * pool.spread_x == 1 && !(pool.padding_y | pool.padding_x);
}

}  // namespace

// Whether steps.hpp carries a population: bytes or shorts from features to features, divided by one power of two.
bool Engine::has_features(int index) const {
    const Population &population = populations_[index];
    const std::vector<Connection> &ways = connections_[index];
    const Signal &target = signals_[population.signal];
    if (population.wide || ways.empty() || ways.size() > most_terms || target.pixels() != 1) return false;
    for (const Connection &way : ways)
        if ((way.form != Form::bytes && way.form != Form::shorts) || way.events < 0 || way.reach ||
            way.shift != ways[0].shift || signals_[way.source].pixels() != 1 || !signals_[way.source].masks ||
            way.channels != signals_[way.source].channels || way.lanes != target.channels ||  // a part of it, of groups
            way.kernel_y * way.kernel_x != 1 || (way.padding_y | way.padding_x) || !is_one(events_[way.events].pool))
            return false;
    return true;
}

int Engine::features() const {
    return static_cast<int>(std::count_if(populations_.begin(), populations_.end(),
                                          [](const Population &population) { return population.features; }));
}

// Samples are independent; those of a group take every step together.
void Engine::by_steps(const std::vector<Given> &given, int first, int count, int machine_steps, Workers &workers) {
    size_t state = 1;
    for (const Population &population : populations_)
        state += 2 * sizeof(int64_t) * signals_[population.signal].pixels() * population.padded();
    const int most = !kernels_->whole_blocks ? most_listed : workers.count() == 1 ? most_together : most_shared;
    const int rounds = divided_up(divided_up(count, most), workers.count());  // groups of every worker
    int together = divided_up(count, rounds * workers.count());
    if (state * together > most_state) together = std::max<int>(1, static_cast<int>(most_state / state));
    workers.each(divided_up(count, together), [&](int index, int worker) {
        const Group group = {index * together, std::min(together, count - index * together)};
        Worker &room = rooms_[worker];
        for (const Given &input : given)
            if (input.spikes) take_spikes(input, first, group.sample, group.samples);
        begin_group(group, room);
        for (int step = 0; step < machine_steps; ++step) {
            if (step % soon <= 1) tell(room);  // after the first step as well: what is chosen depends on it
            if (step % soon == 0) workers.look(worker);
            for (size_t population = 0; population < populations_.size(); ++population)
                step_population(static_cast<int>(population), group, step, room);
        }
        tell(room);
    });
}

// What a worker has counted goes to where all count, now and then: counters that all write to are slow.
void Engine::tell(Worker &room) {
    for (size_t index = 0; index < populations_.size(); ++index) {
        __atomic_fetch_add(&fired[index], room.fired[index], __ATOMIC_RELAXED);
        seen(populations_[index].signal, room.fired[index], room.places[index]);
        room.fired[index] = room.places[index] = 0;
    }
    for (size_t at = 0; at < operations.size(); ++at) {
        __atomic_fetch_add(&operations[at], room.operations[at], __ATOMIC_RELAXED);
        room.operations[at] = 0;
    }
}

// Fresh state.
void Engine::begin_group(const Group &group, Worker &room) {
    forget_lists(group.sample, group.samples);
    room.fired.assign(populations_.size(), 0);
    room.places.assign(populations_.size(), 0);
    room.operations.assign(operations.size(), 0);
    room.current.resize(populations_.size());
    room.potential.resize(populations_.size());
    for (size_t index = 0; index < populations_.size(); ++index) {
        const size_t size = state_bytes(static_cast<int>(index)) * group.samples;
        std::memset(room.current[index].reserve(size), 0, size);
        std::memset(room.potential[index].reserve(size), 0, size);
    }
}

size_t Engine::state_bytes(int index) const {
    const Population &population = populations_[index];
    return static_cast<size_t>(signals_[population.signal].pixels()) * population.padded() * (population.wide ? 8 : 4);
}

// One step of one population, for the samples of a group.
void Engine::step_population(int index, const Group &group, int step, Worker &room) {
    const Population &population = populations_[index];
    const Signal &signal = signals_[population.signal];
    Piece piece = room.piece(index);
    piece.first = step;
    piece.last = step + 1;
    piece.sample = group.sample;
    piece.samples = group.samples;
    piece.current = room.current[index].get();
    piece.potential = room.potential[index].get();
    if (population.features) {
        step_features(piece, group, room);
    } else if (multiplies(index, group.samples, 1)) {
        piece.end = signal.height;
        spread_step(piece, group, room);
        piece.sums = room.room(population, group.samples);
        piece.tiles = divided_up(signal.channels, matrix_tile(population));
        kernels_->multiply(network_, piece);
        __atomic_fetch_add(&multiplied, 1, __ATOMIC_RELAXED);
    } else {
        piece.end = signal.pixels();
        for (int one = 0; one < group.samples; ++one) {
            piece.sample = group.sample + one;
            piece.current = room.current[index].get() + one * state_bytes(index);
            piece.potential = room.potential[index].get() + one * state_bytes(index);
            for (const Connection &way : connections_[index]) {
                const int then = step - way.delay;
                if (way.events >= 0 && then >= 0 && then < events_[way.events].held) list(way.events, piece.sample, then);
            }
            for (piece.tile = 0; piece.tile < population.tiles; ++piece.tile) kernels_->advance(network_, piece);
        }
    }
    room.fired[index] += piece.fired;
    room.places[index] += static_cast<int64_t>(group.samples) * signal.pixels() * signal.channels;
    for (int at = 0; at < population.count; ++at) room.operations[first_connection[index] + at] += piece.operations[at];
}

// The same for features: all is multiplied, or added event by event.
void Engine::step_features(Piece &piece, const Group &group, Worker &room) {
    const int index = piece.population;
    const Population &population = populations_[index];
    const int tile = matrix_tile(population);
    piece.tiles = divided_up(signals_[population.signal].channels, tile);
    size_t sums = static_cast<size_t>(most_added) * population.padded();
    if (multiplies(index, group.samples, 1)) {
        spread_step(piece, group, room);
        sums = piece.tiles * sums_of(group.samples, tile);
        __atomic_fetch_add(&multiplied, 1, __ATOMIC_RELAXED);
    } else {
        int words = 0;
        for (const Connection &way : connections_[index]) words += signals_[way.source].words;
        piece.list = reinterpret_cast<uint32_t *>(room.list.reserve((most_added * words + 1) * 64 * sizeof(uint32_t)));
    }
    piece.sums = reinterpret_cast<int32_t *>(room.sums.reserve(sums * sizeof(int32_t)));
    kernels_->step(network_, piece);
}

// The planes of a group's samples at one step.
void Engine::spread_step(Piece &piece, const Group &group, Worker &room) {
    const std::vector<Connection> &ways = connections_[piece.population];
    const Population &population = populations_[piece.population];
    const bool counted = piece.first >= population.phase && piece.first - population.phase < network_.steps;
    for (size_t at = 0; at < ways.size(); ++at) {
        const Connection &way = ways[at];
        if (!has_matrix(way)) continue;
        uint8_t *bytes = room.planes[at].reserve(plane_bytes(way.matrix, piece.samples));
        room.views[at] = {bytes, way.matrix.line_bytes * piece.samples};
        const Signal &source = signals_[way.source];
        const int then = piece.first - way.delay;
        const uint64_t *masks = then < 0 || then >= source.steps ? nullptr : source.mask(group.sample, then);
        const size_t apart = static_cast<size_t>(source.steps) * source.pixels() * source.words;
        const int64_t events =
            kernels_->spread(network_, way, masks, apart, piece.samples, bytes, room.views[at].row_bytes);
        if (counted) piece.operations[at] += events * way.lanes;
    }
}

}  // namespace snn

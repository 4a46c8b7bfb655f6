// Layer after layer: who takes which samples, and whether their events are added or all is multiplied.
#include "engine.hpp"

namespace snn {

namespace {

constexpr size_t most_sums = 1 << 17;         // bytes of the sums of one piece
constexpr int longest = 1 << 15;              // pixels and steps of a piece: an interrupt waits for no more
constexpr double features_cost = 0.75;        // of one weight added to features, which have no pixels to look up

// Connections that meet in one tile.
int most_connections(const Population &population, const std::vector<Connection> &ways) {
    if (population.count <= most_terms) return population.count;
    int most = 0;
    for (int tile = 0; tile < population.tiles; ++tile) {
        int here = 0;
        for (const Connection &way : ways) here += tile >= way.first_tile && tile < way.first_tile + way.tiles;
        most = most > here ? most : here;
    }
    return most;
}

}  // namespace

// What either way takes to bring so many samples and steps to a population, from the share of neurons seen to fire so far.
Cost Engine::cost(int index, int samples, int steps) const {
    const Population &population = populations_[index];
    const Signal &target = signals_[population.signal];
    const int tile = matrix_tile(population);
    const double places = static_cast<double>(samples) * steps * target.pixels();
    Cost found;
    for (const Connection &way : connections_[index]) {
        if (way.form == Form::one_to_one && signals_[way.source].masks) continue;
        if (!has_matrix(way)) return {};
        const int channels = (divided_up(way.lane + way.lanes, tile) - way.lane / tile) * tile;
        const Matrix &matrix = way.matrix;
        const double rows = divided_up(samples * steps * matrix.rows, 16) * 16.0 * target.height;
        found.made += rows * (kernels_->whole_blocks ? matrix.count * 64 : matrix.columns) * channels;
        const Pool &pool = events_[way.events].pool;
        const double window = static_cast<double>(way.kernel_y) * way.kernel_x * way.channels;
        const double spikes = static_cast<double>(__atomic_load_n(&spikes_[way.source], __ATOMIC_RELAXED));
        const double seen = static_cast<double>(__atomic_load_n(&places_[way.source], __ATOMIC_RELAXED)) + 1e-9;
        const double fired = spikes / seen * pool.kernel_y * pool.kernel_x, each = population.features ? features_cost : 1;
        found.added += each * places * fired * window * way.tiles * population.tile;
        found.visits += each * places * way.tiles;
    }
    if (most_connections(population, connections_[index]) > most_terms) return {};
    return found;
}

// Whether all that arrives is multiplied out: where that is expected to take less time. What is chosen changes no result.
bool Engine::multiplies(int index, int samples, int steps) const {
    const Cost found = cost(index, samples, steps);
    return found.made > 0 && found.made < (found.added + visit * found.visits) * products;
}

// Layer after layer. Where there are samples enough every worker takes its own through all layers, and meets the others
// only at the end; else all share each layer.
void Engine::by_layers(int count, Workers &workers) {
    const int threads = workers.count();
    if (threads == 1 || (count % threads && count < 4 * threads)) {
        run_layers({0, count, 0}, workers);
        return;
    }
    const int parts = count < 8 * threads ? threads : 2 * threads;
    workers.each(parts, [&](int part, int worker) {
        Workers alone(1, [&workers, worker] { workers.look(worker); });
        const int begin = static_cast<int>(static_cast<int64_t>(count) * part / parts);
        run_layers({begin, static_cast<int>(static_cast<int64_t>(count) * (part + 1) / parts) - begin, worker}, alone);
    });
}

// Population after population, all steps of each at once: nothing here depends on itself.
void Engine::run_layers(const Part &part, Workers &workers) {
    forget_lists(part.first, part.count);
    for (size_t index = 0; index < populations_.size(); ++index) {
        const Signal &signal = signals_[populations_[index].signal];
        int64_t spikes = 0;
        if (multiplies(static_cast<int>(index), part.count, signal.steps))
            multiply_layer(static_cast<int>(index), part, workers, spikes);
        else
            advance_layer(static_cast<int>(index), part, workers, spikes);
        seen(populations_[index].signal, spikes,
             static_cast<int64_t>(part.count) * signal.steps * signal.pixels() * signal.channels);
    }
}

void Engine::advance_layer(int index, const Part &part, Workers &workers, int64_t &spikes) {
    const int count = part.count;
    const Population &population = populations_[index];
    const Signal &signal = signals_[population.signal];
    for (const Connection &way : connections_[index])
        if (way.events >= 0) {
            const int held = events_[way.events].held;
            workers.each(count * held, [&](int item, int) { list(way.events, part.first + item / held, item % held); });
        }
    // for one thread whole maps, unless many steps make them long to wait for; for several, pieces enough to share
    const int pixels = signal.pixels(), wanted = workers.count() == 1 ? 1 : 4 * workers.count();
    const int shared = divided_up(pixels, divided_up(wanted, count * population.tiles)), soon = 1 + longest / signal.steps;
    const int rows = shared < soon ? shared : soon, cuts = divided_up(pixels, rows);
    workers.each(count * population.tiles * cuts, [&](int item, int worker) {
        Piece piece = rooms_[part.room + worker].piece(index);
        piece.tile = item / (count * cuts);
        piece.sample = part.first + item / cuts % count;
        piece.begin = item % cuts * rows;
        piece.end = piece.begin + rows < pixels ? piece.begin + rows : pixels;
        piece.last = signal.steps;
        kernels_->advance(network_, piece);
        settle(piece);
        __atomic_fetch_add(&spikes, piece.fired, __ATOMIC_RELAXED);
    });
}

// The planes of all samples and steps, then the products, for as many samples at a time as their sums stay in the cache.
void Engine::multiply_layer(int index, const Part &part, Workers &workers, int64_t &spikes) {
    const int count = part.count;
    const Population &population = populations_[index];
    const Signal &signal = signals_[population.signal];
    const int steps = signal.steps, lines = count * steps, tile = matrix_tile(population);
    std::vector<Plane> planes(connections_[index].size());
    int most = 1;
    for (size_t at = 0; at < planes.size(); ++at) {
        const Connection &way = connections_[index][at];
        if (!has_matrix(way)) continue;
        uint8_t *bytes = rooms_[part.room].planes[at].reserve(plane_bytes(way.matrix, lines));
        planes[at] = {bytes, way.matrix.line_bytes * lines};
        most = most > way.matrix.rows ? most : way.matrix.rows;
        workers.each(lines, [&](int line, int) {
            const int then = line % steps - way.delay;
            const uint64_t *masks = then < 0 ? nullptr : signals_[way.source].mask(part.first + line / steps, then);
            const int64_t events =
                kernels_->spread(network_, way, masks, 0, 1, bytes + line * way.matrix.line_bytes, planes[at].row_bytes);
            __atomic_fetch_add(&operations[first_connection[index] + static_cast<int>(at)], events * way.lanes,
                               __ATOMIC_RELAXED);
        });
    }
    const int wanted = workers.count() == 1 ? 1 : 4 * workers.count();
    const int held = static_cast<int>(most_sums / (static_cast<size_t>(steps) * most * tile * sizeof(int32_t)));
    const int together = held < 1 ? 1 : held < count ? held : count, groups = divided_up(count, together);
    const int tiles = divided_up(signal.channels, tile);
    const int rows = divided_up(signal.height, divided_up(wanted, groups * tiles)), cuts = divided_up(signal.height, rows);
    workers.each(tiles * groups * cuts, [&](int item, int worker) {
        Worker &room = rooms_[part.room + worker];
        Piece piece = room.piece(index);
        piece.tile = item / (groups * cuts);
        const int begin = item / cuts % groups * together;
        piece.sample = part.first + begin;
        piece.samples = together < count - begin ? together : count - begin;
        piece.begin = item % cuts * rows;
        piece.end = piece.begin + rows < signal.height ? piece.begin + rows : signal.height;
        piece.last = steps;
        for (size_t at = 0; at < planes.size(); ++at)
            room.views[at] = {planes[at].bytes + connections_[index][at].matrix.line_bytes * begin * steps,
                              planes[at].row_bytes};
        piece.sums = room.room(population, piece.samples * steps);
        kernels_->multiply(network_, piece);
        settle(piece);
        __atomic_fetch_add(&spikes, piece.fired, __ATOMIC_RELAXED);
    });
    __atomic_fetch_add(&multiplied, 1, __ATOMIC_RELAXED);
}

}  // namespace snn

// Where spikes are many: counts of spikes times all the weights, and the neuron behind it.
//
//     x[s, p, n] = sum over k of count[s, p, k] w[k, n]       s: sample and step, p: target pixel, k: place of its window
//
// Exact: run/compiled.py offers it where no partial sum can leave 32 bits. It costs the same for any number of spikes, so
// the engine takes it where that is less than the events would cost.
#pragma once

#include "layer.hpp"
#include "planes.hpp"
#include "products.hpp"

namespace {

constexpr int most_lines = 64;  // samples and steps of a pixel that are stepped together

// So many sums of 32 bits as a vector has lanes, as wide as the numbers of the population.
template <class Number>
inline Numbers<Number> wide_sums(const int32_t *sums) {
    return __builtin_convertvector(load<typename Vector<Number>::narrow>(sums), Numbers<Number>);
}

// The lowest bits of a word, one for each lane, as all ones or zeros.
template <class Number>
inline Numbers<Number> ones_of(uint64_t bits) {
    Numbers<Number> lanes;
    for (int lane = 0; lane < SNN_BLOCK / static_cast<int>(sizeof(Number)); ++lane) lanes[lane] = lane;
    return -(((Numbers<Number>{} + static_cast<Number>(bits)) >> lanes) & 1);
}

// Whether what a connection brings is added to the sums of the one before it: of the same shape, and divided by as much.
inline bool joins(const snn::Population &population, int index) {
    if (!index || population.wide) return false;
    const snn::Connection &one = population.connections[index - 1], &other = population.connections[index];
    return one.form != snn::Form::one_to_one && other.form != snn::Form::one_to_one && one.shift == other.shift &&
           one.matrix.rows == other.matrix.rows;
}

// What connections bring to a tile of one target pixel: sums [sample][step], or, one to one, factors and the words of the
// source's masks. Distances are in numbers, or words, from one sample and one step to the next.
struct Term {
    const int32_t *sums;
    const void *factors;
    const uint64_t *words;
    size_t sample, step;
    int shift, delay, last, index;

    // The word of a sample and step; nothing before the first.
    uint64_t word(int one, int at) const {
        if (at < delay || at - delay >= last) return 0;
        return words[static_cast<size_t>(one) * sample + static_cast<size_t>(at - delay) * step];
    }
};

template <int TILE, class Number>
inline int terms_of(const snn::Network &network, const snn::Population &population, const snn::Piece &piece, int pixel,
                    int column, Term *into) {
    const Term *const begin = into;
    const int32_t *sums = piece.sums;
    const int steps = piece.last - piece.first, first = piece.tile * TILE;
    for (int index = 0; index < population.count; ++index) {
        const snn::Connection &way = population.connections[index];
        if (joins(population, index)) continue;
        if (way.form != snn::Form::one_to_one) {
            const size_t rows = static_cast<size_t>(way.matrix.rows);
            *into++ = {sums + column * TILE, nullptr, nullptr, steps * rows * TILE, rows * TILE, way.shift, 0, 0, index};
            sums += snn::sums_of(piece.samples * steps * way.matrix.rows, TILE);
            continue;
        }
        const snn::Signal &source = network.signals[way.source];
        const uint64_t *words = source.mask(piece.sample, 0) + static_cast<size_t>(pixel) * source.words + first / 64;
        const auto *factors = reinterpret_cast<const Number *>(way.weights + way.tile_bytes * (first / population.tile) +
                                                               way.pixel_bytes * pixel);
        const size_t frame = static_cast<size_t>(source.pixels()) * source.words;
        *into++ = {nullptr,   factors + first % population.tile, words, frame * source.steps, frame, way.shift,
                   way.delay, source.steps,                      index};
    }
    return static_cast<int>(into - begin);
}

// What arrives at the lanes from ``lane`` on.
template <class Number>
inline Numbers<Number> arrived(const Term *terms, int count, int sample, int first, int step, int lane) {
    Numbers<Number> x = {};
    for (const Term *term = terms; term < terms + count; ++term) {
        Numbers<Number> more;
        if (term->sums)
            more = wide_sums<Number>(term->sums + sample * term->sample + (step - first) * term->step + lane);
        else
            more = ones_of<Number>(term->word(sample, step) >> lane) &
                   load<Numbers<Number>>(static_cast<const Number *>(term->factors) + lane);
        x += term->shift ? more << term->shift : more;
    }
    return x;
}

// A tile of one pixel, for the samples [one, end) of the piece and some of its steps, vector after vector: parameters, and
// the state of all steps, stay in registers.
template <int TILE, class Number>
inline void step_pixel(const snn::Network &network, const snn::Population &population, snn::Piece &piece, int y, int column,
                       int one, int end, int begin, int last, Number *u, Number *w, size_t state) {
    constexpr int lanes = SNN_BLOCK / static_cast<int>(sizeof(Number));
    const snn::Signal &target = network.signals[population.signal];
    const snn::Rules rules = population.rules;
    const int first = piece.tile * TILE, pixel = y * target.width + column, valid = least(TILE, target.channels - first);
    const size_t pixels = static_cast<size_t>(target.pixels());
    const Own<Number> mine = own_of<Number>(population, pixel, first);
    const Number *initial = own<Number>(population.initial, pixel, first);
    const bool readout = population.readout;
    Term terms[snn::most_terms];
    const int count = terms_of<TILE, Number>(network, population, piece, pixel, column, terms);
    uint64_t spikes[most_lines];
    for (int line = 0; line < (end - one) * (last - begin); ++line) spikes[line] = 0;
    for (int lane = 0; lane < valid; lane += lanes) {
        uint64_t *line = spikes;
        for (int sample = one; sample < end; ++sample) {
            Number *const u_here = u + (sample - one) * state + lane, *const w_here = w + (sample - one) * state + lane;
            Numbers<Number> current = load<Numbers<Number>>(u_here), potential = load<Numbers<Number>>(w_here);
            for (int step = begin; step < last; ++step, ++line) {
                if (begins(network, population, step)) {
                    current = Numbers<Number>{};
                    potential = load<Numbers<Number>>(initial + lane);
                }
                const Numbers<Number> x = arrived<Number>(terms, count, sample, piece.first, step, lane);
                const Numbers<Number> v = stepped<Number>(rules, readout, mine, lane, x, current, potential, *line);
                if (!population.potentials || !is_counted(network, population, step)) continue;
                const size_t at = static_cast<size_t>(piece.sample + sample) * network.steps;
                int64_t *out = population.potentials +
                               ((at + step - population.phase) * target.channels + first + lane) * pixels + pixel;
                for (int each = 0; each < lanes && lane + each < valid; ++each) out[each * pixels] = v[each];
            }
            store(u_here, current);
            store(w_here, potential);
        }
    }
    const uint64_t *line = spikes;
    for (int sample = one; sample < end; ++sample)
        for (int step = begin; step < last; ++step, ++line) {
            if (!readout)
                target.mask(piece.sample + sample, step)[static_cast<size_t>(pixel) * target.words + first / 64] = *line;
            if (!is_counted(network, population, step)) continue;
            piece.fired += __builtin_popcountll(*line);
            for (const Term *term = terms; term < terms + count; ++term)
                if (term->words) piece.operations[term->index] += __builtin_popcountll(term->word(sample, step));
        }
}

template <int TILE, class Number>
void multiply_tile(const snn::Network &network, snn::Piece &piece) {
    const snn::Population &population = network.populations[piece.population];
    const snn::Signal &target = network.signals[population.signal];
    const int steps = piece.last - piece.first, many = most(1, most_lines / steps);
    const size_t padded = static_cast<size_t>(population.padded()), state = padded * target.pixels();
    alignas(SNN_BLOCK) Number u_here[TILE] = {}, w_here[TILE] = {};
    for (int y = piece.begin; y < piece.end; ++y) {
        int32_t *room = piece.sums, *sums = room;
        for (int index = 0; index < population.count; ++index) {
            const snn::Connection &way = population.connections[index];
            if (way.form == snn::Form::one_to_one) continue;
            const int rows = piece.samples * steps * way.matrix.rows;
            const bool more = joins(population, index);
            if (!more) sums = room, room += snn::sums_of(rows, TILE);
            products_of(way, piece.planes[index], y, piece.tile * TILE, rows, sums, TILE, more);
        }
        for (int column = 0; column < target.width; ++column)
            for (int one = 0; one < piece.samples; one += many) {
                const int end = least(piece.samples, one + many);
                const size_t place = one * state + (static_cast<size_t>(y) * target.width + column) * padded + piece.tile * TILE;
                Number *u = piece.current ? static_cast<Number *>(piece.current) + place : u_here;
                Number *w = piece.potential ? static_cast<Number *>(piece.potential) + place : w_here;
                for (int step = piece.first; step < piece.last; step += most_lines)
                    step_pixel<TILE, Number>(network, population, piece, y, column, one, end, step,
                                             least(piece.last, step + most_lines), u, w, piece.current ? state : 0);
            }
    }
}

template <class Number>
void multiply_tiles(const snn::Network &network, snn::Piece &piece, int tile) {
    for (const int end = piece.tile + piece.tiles; piece.tile < end; ++piece.tile)
        tile == 32 ? multiply_tile<32, Number>(network, piece) : multiply_tile<64, Number>(network, piece);
}

void multiply_piece(const snn::Network &network, snn::Piece &piece) {
    const snn::Population &population = network.populations[piece.population];
    const int tile = snn::matrix_tile(population);
    set_tiles();
    population.wide ? multiply_tiles<int64_t>(network, piece, tile) : multiply_tiles<int32_t>(network, piece, tile);
    release_tiles();
}

}  // namespace

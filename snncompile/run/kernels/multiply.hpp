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

// Whether what a connection brings to the channels from ``first`` on is added to the sums of the one before it: of the same
// shape, and divided by as much.
inline bool joins(const snn::Population &population, int index, int first, int tile) {
    if (!index || population.wide || !population.connections[index - 1].feeds(first, tile)) return false;
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
        if (joins(population, index, first, TILE) || !way.feeds(first, TILE)) continue;
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

// The sums of the first matrix come first: where they lie is then known before any step.
inline void sums_first(Term *terms, int count) {
    int at = 0;
    while (at < count && !terms[at].sums) ++at;
    if (!at || at == count) return;
    const Term found = terms[at];
    terms[at] = terms[0];
    terms[0] = found;
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
            more = picked<Number>(term->word(sample, step) >> lane, static_cast<const Number *>(term->factors) + lane);
        x += term->shift ? more << term->shift : more;
    }
    return x;
}

// Samples [one, end) and steps [begin, last) of a pixel, and the state of its first sample.
template <class Number>
struct Stretch {
    int y, column, one, end, begin, last;
    Number *u, *w;
    size_t state;  // numbers from the state of one sample to that of the next
};

// Potentials before the reset, where they are kept: [sample][step][channel][pixel].
template <class Number>
inline void keep(const snn::Network &network, const snn::Population &population, int sample, int step, int channel, int pixel,
                 Numbers<Number> v) {
    const snn::Signal &target = network.signals[population.signal];
    if (!is_counted(network, population, step)) return;
    const size_t pixels = static_cast<size_t>(target.pixels());
    const size_t at = static_cast<size_t>(sample) * network.steps + static_cast<size_t>(step - population.phase);
    int64_t *out = population.potentials + (at * target.channels + channel) * pixels + pixel;
    constexpr int lanes = SNN_BLOCK / static_cast<int>(sizeof(Number));
    for (int lane = 0; lane < lanes && channel + lane < target.channels; ++lane) out[lane * pixels] = v[lane];
}

// A tile of one pixel, vector after vector: parameters, and the state through all steps, stay in registers. Where
// something is known of the rules there are sums, and nothing is kept. ``beside``: the words of a second term of one synapse a
// neuron, if that is all that arrives besides.
template <int TILE, class Number, snn::Known KNOWN>
inline void step_lanes(const snn::Network &network, const snn::Population &population, const snn::Piece &piece,
                       const Stretch<Number> &part, const Term *terms, int count, const uint64_t *beside, uint64_t *spikes) {
    constexpr int lanes = SNN_BLOCK / static_cast<int>(sizeof(Number));
    const snn::Signal &target = network.signals[population.signal];
    const snn::Rules rules = snn::given_that<KNOWN>(population.rules);
    constexpr bool any = KNOWN == snn::Known::nothing;
    const bool readout = any && population.readout, holds = rules.current != snn::Decay::forget;
    const int first = piece.tile * TILE, pixel = part.y * target.width + part.column;
    const Own<Number> own_here = own_of<Number>(population, pixel, first);
    const Number *initial = own<Number>(population.initial, pixel, first);
    bool fresh[most_lines];
    for (int step = part.begin; step < part.last; ++step) fresh[step - part.begin] = begins(network, population, step);
    for (int lane = 0; lane < least(TILE, target.channels - first); lane += lanes) {
        uint64_t *line = spikes;
        const uint64_t *word = beside;
        for (int sample = part.one; sample < part.end; ++sample) {
            Number *const u = part.u + (sample - part.one) * part.state + lane;
            Number *const w = part.w + (sample - part.one) * part.state + lane;
            Numbers<Number> current = {}, potential = load<Numbers<Number>>(w);
            if (holds) current = load<Numbers<Number>>(u);
            const int32_t *sums = terms->sums + sample * terms->sample + (part.begin - piece.first) * terms->step + lane;
            for (int step = part.begin; step < part.last; ++step, ++line) {
                if (fresh[step - part.begin]) {
                    current = Numbers<Number>{};
                    potential = load<Numbers<Number>>(initial + lane);
                }
                Numbers<Number> x;
                if (any) {
                    x = arrived<Number>(terms, count, sample, piece.first, step, lane);
                } else {
                    x = wide_sums<Number>(sums) << terms->shift;
                    sums += terms->step;
                    if (beside)
                        x += picked<Number>(*word++ >> lane, static_cast<const Number *>(terms[1].factors) + lane) << terms[1].shift;
                    else if (count > 1)
                        x += arrived<Number>(terms + 1, count - 1, sample, piece.first, step, lane);
                }
                const Numbers<Number> v = stepped<Number>(rules, readout, own_here, lane, x, current, potential, *line);
                if (any && population.potentials)
                    keep<Number>(network, population, piece.sample + sample, step, first + lane, pixel, v);
            }
            if (holds) store(u, current);
            store(w, potential);
        }
    }
}

template <int TILE, class Number>
inline void step_pixel(const snn::Network &network, const snn::Population &population, snn::Piece &piece,
                       const Stretch<Number> &part) {
    const snn::Signal &target = network.signals[population.signal];
    const int first = piece.tile * TILE, pixel = part.y * target.width + part.column;
    Term terms[snn::most_terms] = {};
    const int count = terms_of<TILE, Number>(network, population, piece, pixel, part.column, terms);
    sums_first(terms, count);
    uint64_t spikes[most_lines], words[most_lines];
    const uint64_t *const beside = count == 2 && terms[1].words ? words : nullptr;
    for (int line = 0; line < (part.end - part.one) * (part.last - part.begin); ++line) spikes[line] = 0;
    if (beside) {
        uint64_t *word = words;
        for (int sample = part.one; sample < part.end; ++sample)
            for (int step = part.begin; step < part.last; ++step) *word++ = terms[1].word(sample, step);
    }
    switch (terms->sums && !population.potentials ? snn::known(population.rules, population.readout) : snn::Known::nothing) {
        case snn::Known::usual:
            step_lanes<TILE, Number, snn::Known::usual>(network, population, piece, part, terms, count, beside, spikes);
            break;
        case snn::Known::plain:
            step_lanes<TILE, Number, snn::Known::plain>(network, population, piece, part, terms, count, beside, spikes);
            break;
        default: step_lanes<TILE, Number, snn::Known::nothing>(network, population, piece, part, terms, count, beside, spikes);
    }
    const uint64_t *line = spikes;
    for (int sample = part.one; sample < part.end; ++sample)
        for (int step = part.begin; step < part.last; ++step, ++line) {
            if (!population.readout)
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
            if (way.form == snn::Form::one_to_one || !way.feeds(piece.tile * TILE, TILE)) continue;
            const int rows = piece.samples * steps * way.matrix.rows;
            const bool more = joins(population, index, piece.tile * TILE, TILE);
            if (!more) sums = room, room += snn::sums_of(rows, TILE);
            products_of(way, piece.planes[index], y, piece.tile * TILE - way.first_tile * population.tile, rows, sums, TILE, more);
        }
        for (int column = 0; column < target.width; ++column)
            for (int one = 0; one < piece.samples; one += many) {
                const int end = least(piece.samples, one + many);
                const size_t place = one * state + (static_cast<size_t>(y) * target.width + column) * padded + piece.tile * TILE;
                Stretch<Number> part = {y, column, one, end, 0, 0, u_here, w_here, 0};
                if (piece.current) {
                    part.u = static_cast<Number *>(piece.current) + place;
                    part.w = static_cast<Number *>(piece.potential) + place;
                    part.state = state;
                }
                for (part.begin = piece.first; part.begin < piece.last; part.begin = part.last) {
                    part.last = least(piece.last, part.begin + most_lines);
                    step_pixel<TILE, Number>(network, population, piece, part);
                }
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

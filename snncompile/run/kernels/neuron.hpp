// The neuron, fused behind the sum: decay, drive, overflow, compare, reset, for one tile of one pixel and step.
//
//     u[t] = overflow(decay(u[t-1], alpha) + (x[t] << F))
//     v[t] = overflow(decay(w[t-1], beta) + u[t] + bias)
//     s[t] = v[t] > threshold          w[t] = v[t], or the reset where s[t] = 1
//
// ``run/integer.py`` is the definition. A decay is z m / 2^D; in 32 bits the product is taken in two halves of z, neither
// of which can overflow while D is at most 15: |z| = 2^D a + b gives a m + (b m >> D), at most |z|.
#pragma once

#include "network.hpp"
#include "vectors.hpp"

namespace {

template <class Number>
using Numbers = typename Vector<Number>::type;

template <class Number>
inline Numbers<Number> decayed(Numbers<Number> z, snn::Decay how, int shift, Numbers<Number> kept, int bits, bool floor) {
    constexpr int last = 8 * sizeof(Number) - 1;
    switch (how) {
        case snn::Decay::keep:
            return z;
        case snn::Decay::forget:
            return Numbers<Number>{};
        case snn::Decay::shift:
            return floor ? z >> shift : (z + ((z >> last) & ((Number(1) << shift) - 1))) >> shift;
        case snn::Decay::product:
            break;
    }
    const Number low = (Number(1) << bits) - 1;
    if (floor) return (z >> bits) * kept + (((z & low) * kept) >> bits);
    const Numbers<Number> sign = z >> last, size = (z ^ sign) - sign;
    const Numbers<Number> product = (size >> bits) * kept + (((size & low) * kept) >> bits);
    return (product ^ sign) - sign;
}

template <class Number>
inline Numbers<Number> inside(Numbers<Number> z, bool wraps, int64_t limit) {
    const Number top = static_cast<Number>(limit);
    if (wraps) {  // one wrap, into (-top, top]
        const auto over = z > top, under = z <= -top;
        return z - ((Numbers<Number>)over & (2 * top)) + ((Numbers<Number>)under & (2 * top));
    }
    z = z > top ? Numbers<Number>{} + top : z;
    return z < -top ? Numbers<Number>{} - top : z;
}

// Parameters of one tile and pixel.
template <class Number>
struct Own {
    const Number *alpha, *beta, *bias, *threshold, *reset;
};

// The step of as many neurons as a vector has lanes: their potential before the reset. ``bits`` gets one bit a neuron that
// fires; ``u`` and ``w`` are their state. A read-out is a sum that never fires, and may forget.
template <class Number>
inline Numbers<Number> stepped(const snn::Rules &rules, bool readout, const Own<Number> &own, int lane, Numbers<Number> x,
                               Numbers<Number> &u, Numbers<Number> &w, uint64_t &bits) {
    Numbers<Number> drive = x << rules.fraction;
    if (rules.current != snn::Decay::forget)
        drive += decayed<Number>(u, rules.current, rules.current_shift, load<Numbers<Number>>(own.alpha + lane),
                                 rules.decay_bits, rules.floor);
    if (rules.current_checked) drive = inside<Number>(drive, rules.current_wraps, rules.current_top);
    u = drive;
    Numbers<Number> v = drive + load<Numbers<Number>>(own.bias + lane) +
                        decayed<Number>(w, rules.potential, rules.potential_shift, load<Numbers<Number>>(own.beta + lane),
                                        rules.decay_bits, rules.floor);
    if (rules.potential_checked) v = inside<Number>(v, rules.potential_wraps, rules.potential_top);
    w = v;
    if (readout) return v;
    const Numbers<Number> threshold = load<Numbers<Number>>(own.threshold + lane);
    const Numbers<Number> reset = load<Numbers<Number>>(own.reset + lane);
    bits |= above<Number>(v, threshold) << (lane % 64);
    w = v > threshold ? (rules.soft ? v - reset : reset) : v;
    return v;
}

// The step of TILE neurons: ``x`` becomes the potential before the reset, ``spikes`` gets one bit a neuron.
template <int TILE, class Number, snn::Known KNOWN>
inline void fire_knowing(const snn::Rules &given, bool readout, const Own<Number> &own, Number *x, Number *u, Number *w,
                         uint64_t *spikes) {
    constexpr int lanes = SNN_BLOCK / static_cast<int>(sizeof(Number));
    constexpr bool any = KNOWN == snn::Known::nothing;
    const snn::Rules rules = snn::given_that<KNOWN>(given);  // a copy that no store of numbers can change
    for (int word = 0; word < (TILE + 63) / 64; ++word) {
        uint64_t bits = 0;
        for (int lane = 64 * word; lane < 64 * (word + 1) && lane < TILE; lane += lanes) {
            Numbers<Number> current = {}, potential = load<Numbers<Number>>(w + lane);
            if (any) current = load<Numbers<Number>>(u + lane);
            store(x + lane, stepped<Number>(rules, any && readout, own, lane, load<Numbers<Number>>(x + lane), current,
                                            potential, bits));
            if (any) store(u + lane, current);
            store(w + lane, potential);
        }
        spikes[word] = bits;
    }
}

template <int TILE, class Number>
inline void fire(const snn::Rules &rules, bool readout, const Own<Number> &own, Number *x, Number *u, Number *w,
                 uint64_t *spikes) {
    switch (snn::known(rules, readout)) {
        case snn::Known::usual: return fire_knowing<TILE, Number, snn::Known::usual>(rules, readout, own, x, u, w, spikes);
        case snn::Known::plain: return fire_knowing<TILE, Number, snn::Known::plain>(rules, readout, own, x, u, w, spikes);
        default: return fire_knowing<TILE, Number, snn::Known::nothing>(rules, readout, own, x, u, w, spikes);
    }
}

}  // namespace

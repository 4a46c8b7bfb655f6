// A network made ready: weights and parameters as the kernels read them.
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

Engine::Engine(const std::string &kernels) : kernels_(nullptr) {
    for (const Kernels *known : available())
        if (kernels == known->name) kernels_ = known;
    if (!kernels_) throw std::invalid_argument("this processor has no kernels " + kernels);
    products = kernels_->products;
    visit = kernels_->visit;
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

int Engine::events(int source, int first, int channels, const Pool &pool, int height, int width) {
    Events made;
    made.source = source;
    made.first = first;
    made.channels = channels;
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

void Engine::connect(int population, Connection way, const Weights &weights, bool matrix,
                     const std::vector<uint32_t> &reach) {
    const Population &target = populations_[population];
    way.first_tile = way.lane / target.tile;
    way.tiles = (way.lane + way.lanes - 1) / target.tile - way.first_tile + 1;
    const int before = way.lane % target.tile;  // channels of the first tile that others feed
    if (way.form == Form::depthwise) way.channels = 1;  // of each neuron's own, so many rows lie between places
    way.row_bytes = row_bytes(way.form, target.tile, target.wide);
    const size_t rows = static_cast<size_t>(weights.rows) * way.row_bytes;
    way.pixel_bytes = weights.pixels == 1 ? 0 : rows;
    way.tile_bytes = rows * weights.pixels;
    owned_.push_back(std::make_unique<Memory>());
    uint8_t *data = owned_.back()->reserve(way.tile_bytes * way.tiles);
    pack(weights, way.form, target.tile, way.tiles, before, target.wide, kernels_->block, data);
    way.weights = data;
    if (!reach.empty()) {
        owned_.push_back(std::make_unique<Memory>());
        auto *counts = reinterpret_cast<uint32_t *>(owned_.back()->reserve(reach.size() * 4));
        std::memcpy(counts, reach.data(), reach.size() * 4);
        way.reach = counts;
    }
    if (matrix) connect_matrix(way, signals_[target.signal], weights, before);
    connections_[population].push_back(way);
}

// The plane holds what the targets' windows cover, borders and all. Its width is whole strides, so that one row of the
// product follows the other at a constant distance; those beyond the map are made and left aside.
void Engine::connect_matrix(Connection &way, const Signal &target, const Weights &weights, int before) {
    Matrix &matrix = way.matrix;
    const int channels = way.channels;
    blocks_.push_back(std::make_unique<std::vector<Block>>(blocks_of(way, channels)));
    matrix.blocks = blocks_.back()->data();
    matrix.count = static_cast<int>(blocks_.back()->size());
    owned_.push_back(std::make_unique<Memory>());
    auto *data = reinterpret_cast<int8_t *>(owned_.back()->reserve(matrix_bytes(before + weights.channels, matrix.count)));
    pack_matrix(weights, before, *blocks_.back(), data);
    for (const Block &block : *blocks_.back()) matrix.columns += (block.used + 3) / 4 * 4;
    matrix.weights = data;
    matrix.height = (target.height - 1) * way.stride_y + (way.kernel_y - 1) * way.dilation_y + 1;
    matrix.width = (target.width - 1) * way.stride_x + (way.kernel_x - 1) * way.dilation_x + 1;
    matrix.rows = 1;
    if (target.width > 1) {
        matrix.rows = (matrix.width + way.stride_x - 1) / way.stride_x;
        matrix.width = matrix.rows * way.stride_x;
        matrix.step_bytes = static_cast<size_t>(way.stride_x) * channels;
    }
    matrix.line_bytes = static_cast<size_t>(matrix.width) * channels;
    if (target.width == 1) matrix.step_bytes = matrix.line_bytes = (matrix.line_bytes + 63) / 64 * 64;
    over_.emplace_back(std::make_unique<std::vector<int>>(matrix.height + matrix.width));
    int *over_y = over_.back()->data(), *over_x = over_y + matrix.height;
    for (int to = 0; to < target.height; ++to)
        for (int at = 0; at < way.kernel_y; ++at) ++over_y[to * way.stride_y + at * way.dilation_y];
    for (int to = 0; to < target.width; ++to)
        for (int at = 0; at < way.kernel_x; ++at) ++over_x[to * way.stride_x + at * way.dilation_x];
    matrix.over_y = over_y;
    matrix.over_x = over_x;
}

}  // namespace snn

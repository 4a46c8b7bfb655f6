// Weights as the kernels read them: [tile][target pixel, or 1][ky][kx][channel][channels of the tile].
#include <cstring>
#include <vector>

#include "pack.hpp"

namespace snn {

namespace {

// One row of one tile. ``from`` are the weights of all target channels for one source channel and place of the kernel; the
// tile begins at ``first_channel`` of them.
void pack_row(const int64_t *from, int first_channel, int channels, int tile, Form form, bool wide, int block, uint8_t *to) {
    const auto at = [&](int lane) {
        const int channel = first_channel + lane;
        return channel >= 0 && channel < channels ? from[channel] : 0;
    };
    if (form == Form::bytes) {  // word = 256 high + (low + 128): the channels of a block, its first half below
        const int half = block / 2;
        for (int first = 0; first < tile; first += block)
            for (int lane = 0; lane < half; ++lane) {
                const auto word = static_cast<uint16_t>(256 * at(first + half + lane) + at(first + lane) + 128);
                std::memcpy(to + first + 2 * lane, &word, 2);
            }
        return;
    }
    for (int lane = 0; lane < tile; ++lane) {
        const int64_t weight = at(lane);
        if (form == Form::shorts) {
            const auto narrow = static_cast<int16_t>(weight);
            std::memcpy(to + 2 * lane, &narrow, 2);
        } else if (wide) {
            std::memcpy(to + 8 * lane, &weight, 8);
        } else {
            const auto narrow = static_cast<int32_t>(weight);
            std::memcpy(to + 4 * lane, &narrow, 4);
        }
    }
}

}  // namespace

size_t row_bytes(Form form, int tile, bool wide) {
    return static_cast<size_t>(tile) * (form == Form::bytes ? 1 : form == Form::shorts ? 2 : wide ? 8 : 4);
}

void pack(const Weights &weights, Form form, int tile, int tiles, int before, bool wide, int block, uint8_t *to) {
    const size_t row = row_bytes(form, tile, wide);
    for (int part = 0; part < tiles; ++part)
        for (size_t at = 0; at < static_cast<size_t>(weights.pixels) * weights.rows; ++at, to += row)
            pack_row(weights.data + at * weights.channels, part * tile - before, weights.channels, tile, form, wide, block, to);
}

// Kernel rows one after the other. Where pixels have whole blocks of channels, the same channels of neighbouring pixels
// follow each other: they are read again for the next target, and so come from the first cache.
std::vector<Block> blocks_of(const Connection &way, int channels) {
    std::vector<Block> blocks;
    const auto add = [&](int ky, int kx, int channel, int used) {
        blocks.push_back({ky * way.dilation_y, kx * way.dilation_x * channels + channel,
                          (ky * way.kernel_x + kx) * channels + channel, used});
    };
    const auto fewer = [](int one, int other) { return one < other ? one : other; };
    for (int ky = 0; ky < way.kernel_y; ++ky) {
        const bool joined = way.dilation_x == 1 && channels % 64 != 0;  // pixels that lie side by side are one stretch
        const int stretch = joined ? way.kernel_x * channels : channels;
        for (int at = 0; at < stretch; at += 64)
            for (int kx = 0; kx < (joined ? 1 : way.kernel_x); ++kx) add(ky, kx, at, fewer(64, stretch - at));
    }
    return blocks;
}

size_t matrix_bytes(int channels, int blocks) { return static_cast<size_t>(channels + 63) / 64 * 4 * blocks * 1024; }

void pack_matrix(const Weights &weights, int before, const std::vector<Block> &blocks, int8_t *to) {
    const int channels = before + weights.channels;
    std::memset(to, 0, matrix_bytes(channels, static_cast<int>(blocks.size())));
    for (int panel = 0; panel < channels; panel += 16)
        for (const Block &block : blocks) {
            for (int row = 0; row < block.used; ++row) {
                const int64_t *from = weights.data + static_cast<size_t>(block.first + row) * weights.channels;
                for (int lane = 0; lane < 16; ++lane) {
                    const int channel = panel + lane - before;
                    if (channel < 0 || channel >= weights.channels) continue;
                    to[row / 4 * 64 + lane * 4 + row % 4] = static_cast<int8_t>(from[channel]);
                }
            }
            to += 1024;
        }
}

}  // namespace snn

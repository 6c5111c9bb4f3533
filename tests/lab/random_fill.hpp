// SPDX-License-Identifier: Apache-2.0
// Content that cannot be compressed and can be made again: words of a seeded generator.
#pragma once

#include <cstddef>
#include <cstdint>

namespace lab {

// One step of splitmix64: also a good mixer for seeds.
inline std::uint64_t mix(std::uint64_t value) {
    value += 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

// xorshift64*: cheap enough to fill pages at wire speed under emulation.
class Words {
public:
    explicit Words(std::uint64_t seed) : state_(mix(seed) | 1) {}

    std::uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545f4914f6cdd1du;
    }

private:
    std::uint64_t state_;
};

}  // namespace lab

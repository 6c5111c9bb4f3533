// SPDX-License-Identifier: Apache-2.0
// What a frame of 256 pages costs on its way: sealing, taking apart, packing, unpacking.
#include <benchmark/benchmark.h>

#include <cstring>
#include <random>
#include <vector>

#include "agent/wire/frame.hpp"
#include "agent/wire/page_block.hpp"
#include "common/wire.h"

namespace {

using namespace smig;

constexpr std::size_t kBytes = std::size_t{SMIG_WIRE_MAX_PAGES} * 4096;

// `noise` of 8 words are random, the others repeat.
std::vector<std::byte> pages(int noise) {
    std::mt19937_64 random(1);
    std::vector<std::byte> bytes(kBytes);
    for (std::size_t i = 0; i < kBytes / 8; ++i) {
        const std::uint64_t word = static_cast<int>(i % 8) < noise ? random() : 0x0101010101010101;
        std::memcpy(bytes.data() + i * 8, &word, 8);
    }
    return bytes;
}

void seal(benchmark::State& state) {
    const auto content = pages(8);
    const std::vector<std::byte> pfns(std::size_t{SMIG_WIRE_MAX_PAGES} * 8 + 8);
    FrameWriter writer;
    const ByteView pieces[] = {pfns, content};
    for (auto _ : state) benchmark::DoNotOptimize(writer.seal(SMIG_WIRE_PAGES, pieces));
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kBytes));
}
BENCHMARK(seal);

void take_apart(benchmark::State& state) {
    const auto content = pages(8);
    const std::vector<std::byte> pfns(std::size_t{SMIG_WIRE_MAX_PAGES} * 8 + 8);
    const ByteView pieces[] = {pfns, content};
    for (auto _ : state) {
        state.PauseTiming();
        FrameWriter writer;
        FrameReader reader(SMIG_WIRE_MAX_PAYLOAD);
        const SealedHeader header = writer.seal(SMIG_WIRE_PAGES, pieces);
        state.ResumeTiming();
        const auto feed = [&](ByteView from) {
            while (!from.empty()) {
                const auto place = reader.wanted();
                const std::size_t count = std::min(place.size(), from.size());
                std::memcpy(place.data(), from.data(), count);
                if (!reader.took(count)) return state.SkipWithError("refused");
                from = from.subspan(count);
            }
        };
        feed(header.bytes);
        for (const ByteView piece : pieces) feed(piece);
        benchmark::DoNotOptimize(reader.frame());
    }
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kBytes));
}
BENCHMARK(take_apart);

void pack(benchmark::State& state) {
    const auto content = pages(static_cast<int>(state.range(0)));
    PagePacker packer(kBytes);
    std::size_t packed = 0;
    for (auto _ : state) packed = packer.pack(content).size();
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kBytes));
    state.counters["left"] = packed == 0 ? 1 : static_cast<double>(packed) / kBytes;
}
BENCHMARK(pack)->Arg(0)->Arg(2)->Arg(4)->Arg(8)->ArgName("noise");

void unpack(benchmark::State& state) {
    const auto content = pages(4);
    PagePacker packer(kBytes);
    const ByteView block = packer.pack(content);
    std::vector<std::byte> out(kBytes);
    for (auto _ : state)
        if (!unpack_pages(block, out)) state.SkipWithError("refused");
    state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations() * kBytes));
}
BENCHMARK(unpack);

}  // namespace

BENCHMARK_MAIN();

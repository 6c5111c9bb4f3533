// SPDX-License-Identifier: Apache-2.0
// What the agent does for every batch and every pass besides moving bytes.
#include <benchmark/benchmark.h>

#include "agent/page/image_bitmap.hpp"
#include "agent/policy/compression.hpp"
#include "agent/policy/passes.hpp"

namespace {

using namespace smig;

// A guest of 1 GiB with one frame in `range` to be read.
void walk_bitmap(benchmark::State& state) {
    ImageBitmap frames(Pfn{1 << 18});
    for (std::uint64_t pfn = 0; pfn < frames.top().value; pfn += static_cast<std::uint64_t>(state.range(0)))
        frames.set(Pfn{pfn});
    std::int64_t visited = 0;
    for (auto _ : state)
        for (Pfn next = frames.next(Pfn{0}); next < frames.top(); next = frames.next(next + PageCount{1}))
            ++visited;
    state.SetItemsProcessed(visited);
}
BENCHMARK(walk_bitmap)->Arg(1)->Arg(16)->Arg(1024)->ArgName("one_in");

void decide_pass(benchmark::State& state) {
    PassPolicy policy({});
    PassSeen seen;
    seen.pages = 10'000;
    seen.took_ns = seen.exposed_ns = 1'000'000'000;
    seen.payload_bytes = 40 << 20;
    for (auto _ : state) {
        ++seen.number;
        benchmark::DoNotOptimize(policy.after(seen, 1e8));
    }
}
BENCHMARK(decide_pass);

void decide_compression(benchmark::State& state) {
    CompressionPolicy policy(Compress::automatic);
    for (auto _ : state) policy.sent(1 << 20, policy.pack_next() ? 2'000'000 : 0, 9'000'000);
}
BENCHMARK(decide_compression);

}  // namespace

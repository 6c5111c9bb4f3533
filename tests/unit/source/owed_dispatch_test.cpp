// SPDX-License-Identifier: Apache-2.0
#include "agent/source/owed_dispatch.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <deque>
#include <map>
#include <random>
#include <vector>

#include "agent/page/pfn.hpp"

using namespace smig;

namespace {

constexpr OwedPlace kPages = 500;

OwedIndex some_index() {
    OwedIndex index;
    for (OwedPlace i = 0; i < kPages; ++i) {
        const smig_owed_page one{1000 + i, (0x100 + i) * kPageBytes, 0, 0, 1, 1 + i / 100};
        index.add(std::span(&one, 1));
    }
    index.seal();
    return index;
}

OwedRules rules(const char* speculation, smig_wire_push_order order = SMIG_PUSH_SEQUENTIAL) {
    return {parse_speculation(speculation).value(), order, false};
}

struct Source {
    OwedIndex index = some_index();
    OwedDispatch dispatch;

    explicit Source(const char* speculation = "none")
        : dispatch(index, rules(speculation), PushWindow(0, 0)) {
        dispatch.begin(0);
        dispatch.connected(SMIG_OWED_DEMAND, false);
        dispatch.connected(SMIG_OWED_PUSH, false);
    }
    std::vector<std::uint64_t> next(smig_wire_owed_role role, smig_wire_owed_origin* origin = nullptr) {
        const auto batch = dispatch.next(role);
        if (!batch) return {};
        if (origin != nullptr) *origin = batch->origin;
        dispatch.sent(role, *batch, batch->pfns.size() * 4104, 0);
        return batch->pfns;
    }
    void fetch(std::vector<std::uint64_t> pfns, bool again = false) { dispatch.fetch(pfns, again); }
};

using Pfns = std::vector<std::uint64_t>;

}  // namespace

TEST_CASE("nothing is sent before the list is known, and what was asked for meanwhile is sent then") {
    OwedIndex index = some_index();
    OwedDispatch dispatch(index, rules("none"), PushWindow(0, 0));
    dispatch.connected(SMIG_OWED_DEMAND, false);
    const Pfns asked{1005};
    dispatch.fetch(asked, false);
    CHECK_FALSE(dispatch.next(SMIG_OWED_DEMAND).has_value());
    dispatch.begin(0);
    REQUIRE(dispatch.next(SMIG_OWED_DEMAND).has_value());
}

TEST_CASE("what is asked for goes before all else, and push stands back") {
    Source source("anon-single");
    source.fetch({1200, 1050});
    CHECK_FALSE(source.dispatch.next(SMIG_OWED_PUSH).has_value());
    smig_wire_owed_origin origin{};
    CHECK(source.next(SMIG_OWED_DEMAND, &origin) == Pfns{1200, 1050});
    CHECK(origin == SMIG_OWED_ASKED);
    CHECK_FALSE(source.dispatch.next(SMIG_OWED_PUSH).has_value());
    const Pfns guessed = source.next(SMIG_OWED_DEMAND, &origin);
    CHECK(origin == SMIG_OWED_SPECULATED);
    CHECK(guessed.front() == 1051);
    CHECK(std::ranges::count(guessed, 1201u) == 1);
    CHECK(source.next(SMIG_OWED_DEMAND).empty());
    CHECK(source.next(SMIG_OWED_PUSH, &origin).front() == 1000);
    CHECK(origin == SMIG_OWED_PUSHED);
}

TEST_CASE("a page on its way is not sent a second time, however often it is asked for") {
    Source source;
    CHECK(source.next(SMIG_OWED_PUSH).size() == OwedDispatch::kLeastPushed);
    constexpr std::uint64_t kNext = 1000 + OwedDispatch::kLeastPushed;
    source.fetch({1000, kNext - 1, kNext});
    source.fetch({kNext});
    CHECK(source.next(SMIG_OWED_DEMAND) == Pfns{kNext});
    CHECK(source.next(SMIG_OWED_DEMAND).empty());
    REQUIRE(source.dispatch.taken(SMIG_OWED_PUSH, 1, 1));
    source.fetch({1000});
    CHECK(source.next(SMIG_OWED_DEMAND).empty());
}

TEST_CASE("asked for again, a page is sent whatever was sent") {
    Source source;
    (void)source.next(SMIG_OWED_PUSH);
    source.fetch({1000}, true);
    CHECK(source.next(SMIG_OWED_DEMAND) == Pfns{1000});
}

TEST_CASE("who asks for what nobody listed gets it") {
    Source source;
    source.fetch({5});
    CHECK(source.next(SMIG_OWED_DEMAND) == Pfns{5});
}

TEST_CASE("who asks for what cannot be read holds up nobody") {
    Source source;
    source.fetch({1005, 7, 1006});
    CHECK(source.next(SMIG_OWED_DEMAND) == Pfns{1005});
    const auto refused = source.dispatch.next(SMIG_OWED_DEMAND);
    REQUIRE(refused.has_value());
    CHECK(refused->pfns == Pfns{7});
    source.dispatch.undo(*refused);
    CHECK(source.next(SMIG_OWED_DEMAND) == Pfns{1006});
    CHECK(source.next(SMIG_OWED_DEMAND).empty());
}

TEST_CASE("what is pushed and not taken yet stays within the window") {
    Source source;
    std::uint64_t frames = 0;
    while (!source.next(SMIG_OWED_PUSH).empty()) ++frames;
    CHECK(frames >= 2);
    CHECK(frames < 6);
    REQUIRE(source.dispatch.taken(SMIG_OWED_PUSH, 1, 1000));
    CHECK_FALSE(source.next(SMIG_OWED_PUSH).empty());
}

TEST_CASE("what was on its way on a lost connection is owed again, what was taken is not") {
    Source source;
    const Pfns first = source.next(SMIG_OWED_PUSH);
    const Pfns second = source.next(SMIG_OWED_PUSH);
    REQUIRE(source.dispatch.taken(SMIG_OWED_PUSH, 1, 1));
    source.dispatch.lost(SMIG_OWED_PUSH);
    CHECK(source.dispatch.left() == kPages - first.size());
    CHECK(source.next(SMIG_OWED_PUSH).empty());
    source.dispatch.connected(SMIG_OWED_PUSH, false);
    CHECK(source.next(SMIG_OWED_PUSH) == second);
}

TEST_CASE("a connection that begins afresh gets everything that is not on the other's way") {
    Source source;
    const Pfns pushed = source.next(SMIG_OWED_PUSH);
    REQUIRE(source.dispatch.taken(SMIG_OWED_PUSH, 1, 1));
    source.fetch({1400});
    (void)source.next(SMIG_OWED_DEMAND);
    source.dispatch.connected(SMIG_OWED_PUSH, true);
    CHECK(source.dispatch.left() == kPages - 1);
    CHECK(source.next(SMIG_OWED_PUSH) == pushed);
}

TEST_CASE("an acknowledgement of what was never sent, or that goes back, is wrong") {
    Source source;
    CHECK_FALSE(source.dispatch.taken(SMIG_OWED_PUSH, 1, 0));
    (void)source.next(SMIG_OWED_PUSH);
    CHECK(source.dispatch.taken(SMIG_OWED_PUSH, 1, 0));
    CHECK_FALSE(source.dispatch.taken(SMIG_OWED_PUSH, 0, 0));
    CHECK_FALSE(source.dispatch.taken(SMIG_OWED_PUSH, ~0ull, 0));
    CHECK_FALSE(source.dispatch.taken(SMIG_OWED_DEMAND, 1, 0));
}

TEST_CASE("auto drops neighbours where owed pages are scattered, and keeps them where they lie together") {
    OwedIndex scattered;
    for (OwedPlace i = 0; i < 100; ++i) {
        const smig_owed_page one{1000 + i, (0x100 + 5 * i) * kPageBytes, 0, 0, 1, 1};
        scattered.add(std::span(&one, 1));
    }
    scattered.seal();
    OwedRules adapting = rules("all");
    adapting.adapts = true;
    OwedDispatch dropped(scattered, adapting, PushWindow(1'000'000, 1e9));
    dropped.begin(1e9);
    CHECK(dropped.speculation_mask() == 1u << SMIG_SPECULATE_PPM);
    const OwedIndex dense = some_index();
    OwedDispatch kept(dense, adapting, PushWindow(1'000'000, 1e9));
    kept.begin(1e9);
    CHECK(kept.speculation_mask() == (1u << SMIG_SPECULATE_NR) - 1);
}

TEST_CASE("without mishap every page travels exactly once, whoever asks for what and when") {
    for (unsigned seed = 0; seed < 100; ++seed) {
        std::mt19937 random(seed);
        OwedIndex index = some_index();
        OwedDispatch dispatch(index, rules("all", seed % 2 == 0 ? SMIG_PUSH_OUTWARD : SMIG_PUSH_SEQUENTIAL),
                              PushWindow(0, 0));
        dispatch.begin(0);
        std::map<smig_wire_owed_role, std::uint64_t> frames;
        std::map<smig_wire_owed_role, std::uint64_t> taken;
        std::map<std::uint64_t, int> sent;
        for (const smig_wire_owed_role role : {SMIG_OWED_DEMAND, SMIG_OWED_PUSH})
            dispatch.connected(role, false);
        for (int turn = 0; turn < 20'000 && !dispatch.all_taken(); ++turn) {
            if (random() % 6 == 0) {
                const Pfns asked{1000 + random() % kPages, 1000 + random() % kPages};
                dispatch.fetch(asked, false);
            }
            const smig_wire_owed_role role = random() % 2 == 0 ? SMIG_OWED_DEMAND : SMIG_OWED_PUSH;
            if (const auto batch = dispatch.next(role)) {
                dispatch.sent(role, *batch, 4096 * batch->pfns.size(), 0);
                ++frames[role];
                for (const std::uint64_t pfn : batch->pfns) ++sent[pfn];
            }
            if (taken[role] < frames[role] && random() % 2 == 0) {
                taken[role] += 1 + random() % (frames[role] - taken[role]);
                REQUIRE(dispatch.taken(role, taken[role], 0));
            }
        }
        CHECK(dispatch.all_taken());
        CHECK(sent.size() == kPages);
        for (const auto& [pfn, times] : sent) CHECK(times == 1);
    }
}

// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/push_order.hpp"

#include <doctest/doctest.h>

#include <random>
#include <set>
#include <vector>

#include "agent/policy/push_window.hpp"

using namespace smig;

namespace {

PlaceSet all(OwedPlace size) {
    PlaceSet set;
    set.fill(size);
    return set;
}

std::vector<OwedPlace> take(PushOrder& order, PlaceSet& left, std::size_t count) {
    std::vector<OwedPlace> taken;
    while (taken.size() < count) {
        const auto next = order.next(left);
        if (!next) break;
        REQUIRE(left.erase(*next));
        taken.push_back(*next);
    }
    return taken;
}

}  // namespace

TEST_CASE("sequential push follows addresses, whoever faults, and comes back to what is owed again") {
    PushOrder order(SMIG_PUSH_SEQUENTIAL);
    PlaceSet left = all(10);
    order.faulted(7);
    CHECK(take(order, left, 4) == std::vector<OwedPlace>{0, 1, 2, 3});
    left.insert(1);
    CHECK(take(order, left, 99) == std::vector<OwedPlace>{4, 5, 6, 7, 8, 9, 1});
    CHECK_FALSE(order.next(left).has_value());
}

TEST_CASE("outward push grows a bubble around the latest fault") {
    PushOrder order(SMIG_PUSH_OUTWARD);
    PlaceSet left = all(1000);
    left.erase(500);
    order.faulted(500);
    CHECK(take(order, left, 6) == std::vector<OwedPlace>{501, 499, 502, 498, 503, 497});
}

TEST_CASE("a fault elsewhere is a second pivot, and the newer one is served first") {
    PushOrder order(SMIG_PUSH_OUTWARD);
    PlaceSet left = all(1000);
    order.faulted(100);
    left.erase(100);
    (void)take(order, left, 2);
    order.faulted(900);
    left.erase(900);
    CHECK(take(order, left, 4) == std::vector<OwedPlace>{901, 102, 899, 98});
}

TEST_CASE("a fault at the edge of a bubble moves that edge on") {
    PushOrder order(SMIG_PUSH_OUTWARD);
    PlaceSet left = all(1000);
    left.erase(500);
    order.faulted(500);
    (void)take(order, left, 4);  // 498 to 502
    left.erase(520);
    order.faulted(520);
    CHECK(take(order, left, 3) == std::vector<OwedPlace>{521, 497, 522});
}

TEST_CASE("whatever faults, every page is pushed exactly once and none is forgotten") {
    for (const smig_wire_push_order kind : {SMIG_PUSH_SEQUENTIAL, SMIG_PUSH_OUTWARD}) {
        for (unsigned seed = 0; seed < 200; ++seed) {
            std::mt19937 random(seed);
            const auto size = static_cast<OwedPlace>(1 + random() % 700);
            PushOrder order(kind);
            PlaceSet left = all(size);
            OwedPlace pushed = 0;
            OwedPlace fetched = 0;
            while (left.count() > 0) {
                if (random() % 5 == 0) {
                    const auto place = static_cast<OwedPlace>(random() % size);
                    order.faulted(place);
                    if (left.erase(place)) ++fetched;
                    continue;
                }
                pushed += static_cast<OwedPlace>(take(order, left, 1).size());
                REQUIRE(pushed + fetched <= size);
            }
            CHECK(pushed + fetched == size);
            CHECK_FALSE(order.next(left).has_value());
        }
    }
}

TEST_CASE("the push window settles near the bandwidth-delay product, whatever it was told first") {
    // A link of 100 MB/s and 10 ms, and what stands in a queue adds to the time.
    constexpr double kRate = 100e6;
    constexpr std::uint64_t kDelayNs = 10'000'000;
    for (const double told : {0.0, 1e6, 1e9}) {
        PushWindow window(0, told);
        std::uint64_t now = 1'000'000'000;
        for (int turn = 0; turn < 2000; ++turn) {
            const double in_flight = static_cast<double>(window.bytes());
            const double rate = std::min(kRate, in_flight * 1e9 / static_cast<double>(kDelayNs));
            const auto after =
                static_cast<std::uint64_t>(std::max(static_cast<double>(kDelayNs), in_flight / kRate * 1e9));
            now += static_cast<std::uint64_t>(128e3 / rate * 1e9);
            window.taken(128'000, after, now);
        }
        CHECK(window.bytes() > 0.9 * 1e6);
        CHECK(window.bytes() < 2.5 * 1e6);
        CHECK(window.shortest_ns() == kDelayNs);
    }
}

TEST_CASE("the push window does not collapse when faults leave little room for what is pushed") {
    PushWindow window(4'000'000, 0);
    window.expect(80e6);
    const std::uint64_t first = window.bytes();
    std::uint64_t now = 1'000'000'000;
    for (int turn = 0; turn < 200; ++turn) window.taken(32'000, 20'000'000, now += 20'000'000);
    CHECK(window.bytes() < first);
    CHECK(window.bytes() >= first / 2);
}

TEST_CASE("the push window has a least and a most") {
    CHECK(PushWindow(0, 0).bytes() == PushWindow::kLeast);
    CHECK(PushWindow(1'000, 1e6).bytes() == PushWindow::kLeast);
    CHECK(PushWindow(1'000'000'000, 1e10).bytes() == PushWindow::kMost);
}

// SPDX-License-Identifier: Apache-2.0
// Predictors and push orders on the touches that traces/record.cpp recorded of real algorithms: how many of
// them have to wait.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "agent/page/pfn.hpp"
#include "agent/policy/push_order.hpp"
#include "agent/policy/speculation.hpp"

using namespace smig;

namespace {

std::vector<OwedPlace> recorded(const std::string& name) {
    std::ifstream file(std::filesystem::path(__FILE__).parent_path() / "traces" / (name + ".txt"));
    std::vector<OwedPlace> touches;
    for (OwedPlace page = 0; file >> page;) touches.push_back(page);
    REQUIRE(touches.size() > 500);
    return touches;
}

struct Played {
    std::size_t waits = 0;       // touches of a page that was not there
    std::size_t speculated = 0;  // pages that came along ...
    std::size_t used = 0;        // ... and were touched
};

// Between two touches `pushed_each` pages are pushed; what is asked for, and what goes along, comes at once.
// The program's memory is the last of `memories` equal parts.
Played play(const std::vector<OwedPlace>& touches, const char* rules, smig_wire_push_order kind,
            int pushed_each, OwedPlace memories = 1) {
    const OwedPlace size = (*std::ranges::max_element(touches) + 1) * memories;
    OwedIndex index;
    for (OwedPlace place = 0; place < size; ++place) {
        const smig_owed_page one{place, (0x1000 + place) * kPageBytes, 0, 0, 1, 1};
        index.add(std::span(&one, 1));
    }
    index.seal();
    Speculator speculator(index, parse_speculation(rules).value());
    PushOrder order(kind);
    PlaceSet left;
    left.fill(size);
    Played played;
    std::vector<bool> came_along(size);
    std::vector<OwedPlace> out;
    for (const OwedPlace touched : touches) {
        const OwedPlace place = touched + size / memories * (memories - 1);
        if (came_along[place]) ++played.used;
        if (left.erase(place)) {
            ++played.waits;
            order.faulted(place);
            out.clear();
            speculator.demand(place, left, 16, out);
            for (const OwedPlace one : out) {
                left.erase(one);
                came_along[one] = true;
                ++played.speculated;
            }
        }
        for (int i = 0; i < pushed_each; ++i)
            if (const auto next = order.next(left)) left.erase(*next);
    }
    return played;
}

double share(const std::string& name, const char* rules) {
    const auto touches = recorded(name);
    const Played none = play(touches, "none", SMIG_PUSH_SEQUENTIAL, 0);
    const Played with = play(touches, rules, SMIG_PUSH_SEQUENTIAL, 0);
    CHECK(none.waits == touches.size());
    CHECK(none.speculated == 0);
    CHECK(with.waits + with.used == touches.size());
    return static_cast<double>(with.waits) / static_cast<double>(none.waits);
}

}  // namespace

TEST_CASE("recorded: a sort's sweep waits for few of its pages, by neighbours or by prediction") {
    CHECK(share("sort", "anon-single") < 0.1);
    CHECK(share("sort", "ppm") < 0.2);
    CHECK(share("sort", "all") < 0.1);
}

TEST_CASE("recorded: columns of a matrix, whose steps alternate, are what prediction is for") {
    CHECK(share("matrix", "ppm") < 0.5);
    CHECK(share("matrix", "all") < 0.35);
}

TEST_CASE("recorded: a copying collector writes in order and reads all over") {
    CHECK(share("compact", "all") < 0.8);
}

TEST_CASE("recorded: a key-value store and an index spare waits too, and no kind makes one worse") {
    for (const char* name : {"hash", "tree"})
        for (const char* kinds : {"anon-single", "anon-multi", "ppm", "all"})
            CHECK(share(name, kinds) <= 1.0);
    CHECK(share("hash", "all") < 0.6);
    CHECK(share("tree", "all") < 0.6);
}

TEST_CASE(
    "recorded: in a large guest, pushing outwards from the faults spares waits that pushing by address does "
    "not") {
    for (const std::string name : {"sort", "matrix", "tree", "compact", "hash"}) {
        const auto touches = recorded(name);
        const Played by_address = play(touches, "none", SMIG_PUSH_SEQUENTIAL, 1, 20);
        const Played outward = play(touches, "none", SMIG_PUSH_OUTWARD, 1, 20);
        CHECK(by_address.waits == touches.size());
        CHECK_MESSAGE(outward.waits < 0.75 * static_cast<double>(by_address.waits), name, ": ",
                      outward.waits);
    }
}

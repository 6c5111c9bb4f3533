// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/speculation.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "agent/page/pfn.hpp"
#include "agent/policy/ppm.hpp"

using namespace smig;

namespace {

struct Mapping {
    std::uint32_t space;
    OwedPlace pages;
    std::uint64_t file = 0;  // its page i is the file's page i
};

// Mappings one after the other, each with all its pages owed; area numbers from 1 on.
OwedIndex index_of(const std::vector<Mapping>& mappings) {
    OwedIndex index;
    std::uint64_t pfn = 1000;
    for (std::size_t i = 0; i < mappings.size(); ++i)
        for (OwedPlace page = 0; page < mappings[i].pages; ++page) {
            const smig_owed_page one{pfn++,
                                     (0x10000 * (i + 1) + page) * kPageBytes,
                                     mappings[i].file,
                                     mappings[i].file != 0 ? page : 0,
                                     mappings[i].space,
                                     static_cast<std::uint32_t>(i + 1)};
            index.add(std::span(&one, 1));
        }
    index.seal();
    return index;
}

SpeculationRules only(const char* text) {
    return parse_speculation(text).value();
}

// Demands a page as the source does; what goes along.
struct Trace {
    explicit Trace(const std::vector<Mapping>& mappings, const char* rules)
        : index(index_of(mappings)), speculator(index, only(rules)) {
        left.fill(index.size());
    }
    std::vector<OwedPlace> demand(OwedPlace place, std::size_t most = 32) {
        std::vector<OwedPlace> out;
        left.erase(place);
        speculator.demand(place, left, most, out);
        for (const OwedPlace one : out) left.erase(one);
        return out;
    }
    OwedIndex index;
    Speculator speculator;
    PlaceSet left;
};

// Of a trace of touches: how many had to be waited for.
std::size_t faults(Trace& trace, const std::vector<OwedPlace>& touches) {
    std::size_t count = 0;
    for (const OwedPlace place : touches) {
        if (!trace.left.test(place)) continue;
        ++count;
        (void)trace.demand(place);
    }
    return count;
}

std::vector<OwedPlace> walk(OwedPlace first, int step, std::size_t count) {
    std::vector<OwedPlace> touches;
    for (std::size_t i = 0; i < count; ++i)
        touches.push_back(
            static_cast<OwedPlace>(static_cast<std::int64_t>(first) + step * static_cast<std::int64_t>(i)));
    return touches;
}

}  // namespace

TEST_CASE("a list of speculation is read as it is written") {
    CHECK(only("none").mask() == 0);
    CHECK(only("all").mask() == (1u << SMIG_SPECULATE_NR) - 1);
    const SpeculationRules some = only("ppm:5,anon-single");
    CHECK(some.thresholds[SMIG_SPECULATE_PPM] == 5);
    CHECK(some.on(SMIG_SPECULATE_ANON_SINGLE));
    CHECK_FALSE(some.on(SMIG_SPECULATE_FILE_MULTI));
    CHECK(speculation_names(some.mask()) == "anon-single,ppm");
    CHECK(speculation_names(0) == "none");
    for (const char* bad : {"", "ppm,", ",ppm", "anon", "ppm:", "ppm:0", "ppm:1001", "ppm:x", "ppm:-1",
                            "all,ppm", "ppm:1:2", "ppm: 1"})
        CHECK_FALSE(parse_speculation(bad).ok());
}

TEST_CASE("anon-single brings neighbours of the same mapping, ever more of them while faults go on beside") {
    Trace trace({{1, 100}, {1, 100}}, "anon-single");
    const auto first = trace.demand(10);
    CHECK(first == std::vector<OwedPlace>{11, 12, 13, 14, 9});
    const auto second = trace.demand(15);
    CHECK(second.size() == 8);
    CHECK(second.front() == 16);
    const auto far = trace.demand(95);
    CHECK(far.size() <= 4);
    for (const OwedPlace one : far) CHECK(one < 100);
}

TEST_CASE("anon-single turns with the direction of the faults") {
    Trace trace({{1, 100}}, "anon-single");
    (void)trace.demand(60, 0);
    CHECK(trace.demand(55).front() == 54);
}

TEST_CASE("a threshold keeps a kind quiet until it was met") {
    Trace trace({{1, 100}}, "anon-single:3");
    CHECK(trace.demand(10).empty());
    CHECK(trace.demand(40).empty());
    CHECK_FALSE(trace.demand(70).empty());
}

TEST_CASE("anon-multi brings what is next in the process's other mappings, not in other processes") {
    Trace trace({{1, 50}, {1, 50}, {2, 50}}, "anon-multi:1");
    CHECK(trace.demand(10).empty());
    CHECK(trace.demand(110).empty());  // another space
    CHECK(trace.demand(60) == std::vector<OwedPlace>{11, 12});
}

TEST_CASE("anon-multi alone keeps up with mappings that are walked in step") {
    Trace trace({{1, 200}, {1, 200}, {1, 200}, {1, 200}}, "anon-multi");
    std::vector<OwedPlace> touches;
    for (OwedPlace place = 0; place < 200; ++place)
        for (OwedPlace mapping = 0; mapping < 4; ++mapping) touches.push_back(200 * mapping + place);
    CHECK(faults(trace, touches) < touches.size() * 2 / 5);
}

TEST_CASE("file-single stays in the mapping, file-multi goes to the file's other mappings") {
    const std::vector<Mapping> mappings{{1, 20, 7}, {2, 20, 7}, {3, 20, 8}};
    Trace single(mappings, "file-single");
    const auto beside = single.demand(5);
    CHECK(beside == std::vector<OwedPlace>{6, 7, 8, 9, 4});
    Trace multi(mappings, "file-multi:1");
    CHECK(multi.demand(5) == std::vector<OwedPlace>{25, 6, 26});
}

TEST_CASE("file kinds leave anonymous mappings alone, and the other way round") {
    const std::vector<Mapping> mappings{{1, 20, 7}, {1, 20}};
    Trace file(mappings, "file-single,file-multi:1");
    CHECK(file.demand(25).empty());
    Trace anon(mappings, "anon-single,anon-multi:1");
    CHECK(anon.demand(5).empty());
}

TEST_CASE("ppm learns a stride in one mapping and knows it in another") {
    Trace trace({{1, 400}, {1, 400}}, "ppm");
    const std::size_t first = faults(trace, walk(0, 7, 50));
    CHECK(first < 15);
    const std::size_t second = faults(trace, walk(400, 7, 50));
    CHECK(second < 8);
}

TEST_CASE("ppm tells a repeated pattern of steps that no single step tells") {
    std::vector<OwedPlace> touches;
    OwedPlace at = 0;
    for (int turn = 0; turn < 100; ++turn)
        for (const OwedPlace step : {1u, 1u, 9u}) touches.push_back(at += step);
    Trace trace({{1, 2000}}, "ppm");
    CHECK(faults(trace, touches) < touches.size() / 4);
}

TEST_CASE("a sequential walk waits for few pages, a random one is not made worse") {
    for (const std::string kinds : {"anon-single", "ppm", "all"}) {
        Trace trace({{1, 1000}}, kinds.c_str());
        CHECK_MESSAGE(faults(trace, walk(0, 1, 1000)) < 150, kinds);
        Trace back({{1, 1000}}, kinds.c_str());
        CHECK_MESSAGE(faults(back, walk(999, -1, 1000)) < 150, kinds);
    }
    std::mt19937 random(5);
    std::vector<OwedPlace> touches(300);
    for (OwedPlace& place : touches) place = static_cast<OwedPlace>(random() % 10'000);
    Trace none({{1, 10'000}}, "none");
    Trace all({{1, 10'000}}, "all");
    CHECK(faults(all, touches) <= faults(none, touches));
}

TEST_CASE("whatever is demanded, what goes along is owed, within the bound, and named once") {
    std::mt19937 random(17);
    for (int world = 0; world < 100; ++world) {
        std::vector<Mapping> mappings;
        for (std::size_t i = 0; i < 1 + random() % 6; ++i)
            mappings.push_back({static_cast<std::uint32_t>(1 + i / 2),
                                static_cast<OwedPlace>(1 + random() % 90),
                                random() % 2 == 0 ? 7u + random() % 2 : 0u});
        Trace trace(mappings, "all");
        OwedPlace place = 0;
        for (int turn = 0; turn < 60; ++turn) {
            place = static_cast<OwedPlace>((random() % 3 == 0 ? random() : place + 1ul) % trace.index.size());
            const std::size_t most = random() % 40;
            trace.left.erase(place);
            const PlaceSet before = trace.left;
            std::vector<OwedPlace> out = trace.demand(place, most);
            CHECK(out.size() <= most);
            for (const OwedPlace one : out) CHECK(before.test(one));
            std::ranges::sort(out);
            CHECK(std::ranges::adjacent_find(out) == out.end());
        }
    }
}

TEST_CASE("the predictor says nothing before it has seen enough, and forgets what is no more so") {
    StepPredictor predictor;
    StepPredictor::History history;
    history.add(3);
    CHECK_FALSE(predictor.predict(history, 1).has_value());
    predictor.learn(history, 4);
    CHECK(predictor.predict(history, 1) == 4);
    CHECK_FALSE(predictor.predict(history, 2).has_value());
    predictor.learn(history, 4);
    CHECK(predictor.predict(history, 2) == 4);
    for (int i = 0; i < 10; ++i) predictor.learn(history, 5);
    CHECK(predictor.predict(history, 2) == 5);
}

TEST_CASE("the longest known history speaks first") {
    StepPredictor predictor;
    StepPredictor::History shorter;
    shorter.add(1);
    StepPredictor::History longer;
    longer.add(2);
    longer.add(1);
    for (int i = 0; i < 3; ++i) {
        predictor.learn(shorter, 10);
        StepPredictor::History with_more = longer;
        predictor.learn(with_more, 20);
        predictor.learn(shorter, 10);
    }
    CHECK(predictor.predict(longer, 2) == 20);
    CHECK(predictor.predict(shorter, 2) == 10);
}

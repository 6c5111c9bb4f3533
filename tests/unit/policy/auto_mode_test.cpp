// SPDX-License-Identifier: Apache-2.0
#include "agent/policy/auto_mode.hpp"

#include <doctest/doctest.h>

#include "agent/policy/mode.hpp"

using namespace smig;

namespace {

// A guest of 100,000 pages on a link of 100 MiB/s: a page takes 39 us.
AutoSeen pass(std::uint64_t number, std::uint64_t pages, std::uint64_t before) {
    AutoSeen seen;
    seen.number = number;
    seen.pages = seen.changed_pages = pages;
    seen.previous_pages = before;
    seen.exposed_ns = 4'000'000'000;
    seen.runs = pages / 3 + 1;
    seen.page_ns = 39'000;
    seen.bytes_per_s = 100 << 20;
    seen.rtt_ns = 500'000;
    return seen;
}

AutoPolicy policy() {
    return AutoPolicy(PassLimits{30, 300, 0});
}

bool says(const AutoDecision& decision, const char* text) {
    return decision.why.find(text) != std::string::npos;
}

}  // namespace

TEST_CASE("auto goes on while what is left fits the limit, and says so") {
    const AutoDecision decision = policy().before_pass(pass(2, 3'000, 100'000));
    CHECK_FALSE(decision.switch_now);
    CHECK(says(decision, "no page need be owed"));
}

TEST_CASE("auto goes on while passes converge") {
    CHECK_FALSE(policy().before_pass(pass(2, 30'000, 100'000)).switch_now);
}

TEST_CASE("auto switches when passes do not converge, and gives the figures") {
    const AutoDecision decision = policy().before_pass(pass(2, 80'000, 100'000));
    CHECK(decision.switch_now);
    CHECK(says(decision, "80 %"));
    CHECK(says(decision, "3120 ms"));
    CHECK(says(decision, "the limit is 300"));
    CHECK(says(decision, "100.0 MiB/s"));
    CHECK(says(decision, "78.1 MiB/s"));
    CHECK(says(decision, "3.0 frames"));
}

TEST_CASE("auto makes no pass in which as much is written as before it, however little the last one left") {
    AutoSeen seen = pass(2, 30'000, 100'000);
    CHECK_FALSE(policy().before_pass(seen).switch_now);
    // It takes 1.2 s, so its pages are 0.6 s old in the mean.
    seen.exposed_ns = 700'000'000;
    const AutoDecision decision = policy().before_pass(seen);
    CHECK(decision.switch_now);
    CHECK(says(decision, "this pass would leave 84 %"));
}

TEST_CASE("auto switches when too many passes would be needed, or may not be made") {
    // 191 s of it, each pass half of the one before: ten more.
    AutoSeen seen = pass(2, 4'900'000, 10'000'000);
    seen.exposed_ns = 400'000'000'000;
    const AutoDecision decision = policy().before_pass(seen);
    CHECK(decision.switch_now);
    CHECK(says(decision, "left 49 %"));
    CHECK(AutoPolicy(PassLimits{2, 300, 0}).before_pass(pass(2, 30'000, 100'000)).switch_now);
}

TEST_CASE("the more is written, the sooner auto switches: never the other way round") {
    bool switched = false;
    for (std::uint64_t pages = 1'000; pages <= 100'000; pages += 1'000) {
        const bool now = policy().before_pass(pass(2, pages, 100'000)).switch_now;
        CHECK((now || !switched));
        switched = now;
    }
    CHECK(switched);
}

TEST_CASE("passes that end by themselves owe nothing when the rest fits, and owe it otherwise") {
    PassDecision decision;
    decision.expected_stop_ms = 700;
    CHECK_FALSE(policy().after_passes(SMIG_STOP_WITHIN_LIMIT, decision).switch_now);
    for (const smig_wire_stop_reason reason : {SMIG_STOP_NO_GAIN, SMIG_STOP_MAX_PASSES})
        CHECK(policy().after_passes(reason, decision).switch_now);
}

TEST_CASE("an explanation fits where it is kept") {
    CHECK(policy().before_pass(pass(2, 80'000'000, 100'000'000)).why.size() < 440);
}

TEST_CASE("speculation pays where owed pages lie together, or a round trip is long") {
    constexpr double kRate = 1 << 30;
    CHECK_FALSE(speculation_pays(0, 1'000'000, kRate));
    CHECK_FALSE(speculation_pays(100, 1'000'000, kRate));
    CHECK(speculation_pays(800, 1'000'000, kRate));
    CHECK(speculation_pays(120, 50'000'000, kRate));
    // A slow link with hardly a delay: what is sent in vain costs as much as it spares.
    CHECK_FALSE(speculation_pays(130, 1'000, 1 << 20));
    CHECK(only_ppm(all_speculation()).mask() == 1u << SMIG_SPECULATE_PPM);
}

TEST_CASE("every mode has a name that leads back to it") {
    for (const Mode mode : {Mode::precopy, Mode::stop_copy, Mode::hybrid, Mode::hybrid_ns, Mode::postcopy,
                            Mode::postcopy_i, Mode::automatic}) {
        CHECK(mode_named(traits_of(mode).name) == mode);
        CHECK(mode_names().find(traits_of(mode).name) != std::string::npos);
        // What is owed was followed, so that it is known to lack.
        CHECK((!traits_of(mode).owes || traits_of(mode).passes));
    }
    CHECK_FALSE(mode_named("teleport").has_value());
    CHECK_FALSE(traits_of(Mode::postcopy).anonymous);
    CHECK(traits_of(Mode::hybrid).speculates);
    CHECK_FALSE(traits_of(Mode::hybrid_ns).speculates);
}

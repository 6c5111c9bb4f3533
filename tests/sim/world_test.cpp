// SPDX-License-Identifier: Apache-2.0
// Thousands of moves through every mishap: never two owners, always one, before GO every failure ends with
// the guest on the source, after GO never.
//
// SMIG_SIM_SEED=N runs that one world and prints what happened; SMIG_SIM_RUNS=N runs so many.
#include <doctest/doctest.h>

#include <cstdlib>
#include <iostream>
#include <string>

#include "tests/sim/world.hpp"

using namespace smig::sim;

namespace {

constexpr std::int64_t kMove = 300'000;
constexpr std::int64_t kAftermath = 300'000;

std::uint64_t from_environment(const char* name, std::uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

// Some worlds have one kind of mishap, some have all, some have none.
Faults faults_of(std::uint64_t seed) {
    std::mt19937_64 random(seed * 7919 + 1);
    const auto some = [&](double chance) { return random() % 3 == 0 ? chance : 0.0; };
    Faults faults;
    faults.cut_wire = some(0.01);
    faults.heal_wire = random() % 2 == 0 ? 0.05 : 0.002;
    faults.corrupt = some(0.02);
    faults.kill_stop_process = some(0.01);
    faults.kill_supervisor = some(0.005);
    faults.kill_target_agent = some(0.01);
    faults.kill_target_vm = some(0.005);
    faults.cancel = some(0.01);
    faults.switch_now = some(0.5);
    faults.device_fails = some(0.03);
    faults.jump_hangs = some(0.3);
    faults.clone_sleeps = some(0.3);
    faults.owes = random() % 2 == 0 ? 0.7 : 0.0;
    faults.kill_clone_process = some(0.01);
    faults.guest_frees = some(0.2);
    return faults;
}

std::string story(const World& world, std::uint64_t seed) {
    std::string text = "seed " + std::to_string(seed) + ": " + world.violation() + "\n";
    for (const std::string& line : world.log()) text += "  " + line + "\n";
    return text;
}

struct Tally {
    int moved = 0;
    int rolled_back = 0;
    int in_doubt = 0;
    int second_moves = 0;
    int taken_over = 0;
    int with_owed = 0;
};

// What must hold when the dust has settled; empty when it does.
std::string broken_end(const World& world) {
    if (!world.violation().empty()) return world.violation();
    if (!world.given())
        return world.guest_on_source() ? "" : "not given, but the guest does not run on the source";
    if (world.guest_on_source()) return "given, but the guest runs on the source";
    if (!world.guest_on_clone() && world.source_answers() && !world.target_vm_was_lost())
        return "given and both sides live, but the clone does not run";
    if (!world.guest_on_clone() || world.missing() == 0) {
        if (world.guest_waits() != 0) return "somebody waits for a page that is there";
        return "";
    }
    if (world.source_answers()) return "both sides live, but pages of the guest are still missing";
    return "";
}

void run(std::uint64_t seed, const Faults& faults, Tally& tally, bool tell) {
    World world(seed, faults);
    world.move(kMove);
    world.make_peace();
    world.run_for(kAftermath);
    const std::string end = broken_end(world);
    CHECK_MESSAGE(end.empty(), end, "\n", story(world, seed));
    if (tell) std::cout << story(world, seed);
    if (world.supervisor_took_over()) ++tally.taken_over;
    if (world.guest_on_clone()) {
        ++tally.moved;
        if (world.owed_ever() > 0 && world.missing() == 0) ++tally.with_owed;
        return;
    }
    if (world.given()) {
        ++tally.in_doubt;
        return;
    }
    ++tally.rolled_back;
    if (!world.receiving()) return;  // the target's machine hangs: a person must restart it
    ++tally.second_moves;
    world.move(kMove);
    CHECK_MESSAGE((world.violation().empty() && world.guest_on_clone()), "a second move in peace fails\n",
                  story(world, seed));
}

bool notices(Sabotage sabotage, const Faults& faults) {
    for (std::uint64_t seed = 1; seed <= 500; ++seed) {
        World world(seed, faults, sabotage);
        world.move(kMove);
        world.make_peace();
        world.run_for(kAftermath);
        if (!broken_end(world).empty()) return true;
    }
    return false;
}

}  // namespace

TEST_CASE("in a quiet world every guest moves") {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        World world(seed, Faults{});
        world.move(kMove);
        CHECK_MESSAGE((world.guest_on_clone() && world.violation().empty()), story(world, seed));
    }
}

TEST_CASE("whatever happens, the guest has one owner, and before GO it is the source") {
    Tally tally;
    if (const std::uint64_t seed = from_environment("SMIG_SIM_SEED", 0); seed != 0)
        return run(seed, faults_of(seed), tally, true);
    const std::uint64_t runs = from_environment("SMIG_SIM_RUNS", 20000);
    const std::uint64_t first = from_environment("SMIG_SIM_FIRST", 1);
    for (std::uint64_t seed = first; seed < first + runs; ++seed) run(seed, faults_of(seed), tally, false);
    std::cout << "seeds " << first << " to " << first + runs - 1 << ": moved " << tally.moved
              << ", rolled back " << tally.rolled_back << " (then moved " << tally.second_moves
              << "), in doubt " << tally.in_doubt << ", supervisor took over " << tally.taken_over
              << ", with owed pages " << tally.with_owed << "\n";
    // Worlds that never meet a mishap prove nothing.
    CHECK(tally.moved > 0);
    CHECK(tally.rolled_back > 0);
    CHECK(tally.second_moves > 0);
    CHECK(tally.taken_over > 0);
    CHECK(tally.with_owed > 0);
}

TEST_CASE("the world notices a source that says GO before it has committed") {
    CHECK(notices(Sabotage::go_before_commit, {}));
}

TEST_CASE("the world notices a clone that runs because nobody answers") {
    Faults faults;
    faults.cut_wire = 0.05;
    faults.heal_wire = 0.002;
    CHECK(notices(Sabotage::clone_trusts_silence, faults));
}

TEST_CASE("the world notices a supervisor that thaws a guest that was given") {
    Faults faults;
    faults.kill_stop_process = 0.05;
    CHECK(notices(Sabotage::supervisor_thaws_given, faults));
}

TEST_CASE("the world notices a rollback that leaves the guest frozen") {
    Faults faults;
    faults.device_fails = 0.1;
    CHECK(notices(Sabotage::rollback_without_thaw, faults));
}

TEST_CASE("the world notices a stop that forgets what changed since the last pass") {
    CHECK(notices(Sabotage::stale_stop_image, {}));
}

TEST_CASE("in a quiet world every owed page comes and the source retires") {
    Faults faults;
    faults.owes = 1;
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        World world(seed, faults);
        world.move(kMove);
        CHECK_MESSAGE((world.violation().empty() && world.guest_on_clone() && world.owed_ever() > 0 &&
                       world.missing() == 0 && world.guest_waits() == 0 && world.source_finished()),
                      story(world, seed));
    }
}

TEST_CASE("owed pages come through cut wires and dying processes") {
    Faults faults;
    faults.owes = 1;
    faults.cut_wire = 0.02;
    faults.heal_wire = 0.05;
    faults.corrupt = 0.01;
    faults.kill_clone_process = 0.02;
    faults.guest_frees = 0.1;
    int drained = 0;
    for (std::uint64_t seed = 1; seed <= 2000; ++seed) {
        World world(seed, faults);
        world.move(kMove);
        world.make_peace();
        world.run_for(kAftermath);
        const std::string end = broken_end(world);
        CHECK_MESSAGE(end.empty(), end, "\n", story(world, seed));
        if (world.guest_on_clone() && world.owed_ever() > 0) ++drained;
    }
    CHECK(drained > 1000);
}

TEST_CASE("the world notices a supervisor that forgets that pages are owed") {
    Faults faults;
    faults.owes = 1;
    faults.kill_stop_process = 0.03;
    CHECK(notices(Sabotage::forgets_owed, faults));
}

TEST_CASE("the world notices a clone that says DRAINED too early") {
    Faults faults;
    faults.owes = 1;
    CHECK(notices(Sabotage::drained_early, faults));
}

TEST_CASE("the world notices a source that sends the wrong page") {
    Faults faults;
    faults.owes = 1;
    CHECK(notices(Sabotage::stale_owed_page, faults));
}

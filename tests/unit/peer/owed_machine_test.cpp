// SPDX-License-Identifier: Apache-2.0
#include "agent/peer/owed_machine.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <vector>

using namespace smig;

namespace {

using Pfns = std::vector<std::uint64_t>;

const OwedAction* find(const OwedActions& actions, OwedDo what, smig_wire_owed_role role = {}) {
    const auto found = std::ranges::find_if(actions, [&](const OwedAction& one) {
        return one.what == what && (role == smig_wire_owed_role{} || one.role == role);
    });
    return found == actions.end() ? nullptr : &*found;
}

OwedMachine connected() {
    OwedMachine machine(OwedLimits{});
    const OwedActions begun = machine.begin(0);
    CHECK(find(begun, OwedDo::connect, SMIG_OWED_DEMAND) != nullptr);
    CHECK(find(begun, OwedDo::connect, SMIG_OWED_PUSH) != nullptr);
    CHECK(find(machine.connected(SMIG_OWED_DEMAND, 0), OwedDo::send_hello) != nullptr);
    CHECK(find(machine.connected(SMIG_OWED_PUSH, 0), OwedDo::send_hello) != nullptr);
    return machine;
}

}  // namespace

TEST_CASE("what faults wait for is asked for once") {
    OwedMachine machine = connected();
    const Pfns some{7, 8, 7};
    const OwedActions actions = machine.faults(some, 0);
    REQUIRE(actions.size() == 1);
    CHECK(actions[0].what == OwedDo::send_fetch);
    CHECK(actions[0].pfns == Pfns{7, 8});
    CHECK_FALSE(actions[0].again);
    CHECK(machine.faults(some, 1).empty());
}

TEST_CASE("many faults go in as many frames as they need") {
    OwedMachine machine = connected();
    Pfns many(SMIG_WIRE_MAX_FETCH + 5);
    for (std::size_t i = 0; i < many.size(); ++i) many[i] = i;
    const OwedActions actions = machine.faults(many, 0);
    REQUIRE(actions.size() == 2);
    CHECK(actions[0].pfns.size() == SMIG_WIRE_MAX_FETCH);
    CHECK(actions[1].pfns.size() == 5);
}

TEST_CASE("what is not answered in time is asked for again, what has come is not") {
    OwedMachine machine = connected();
    const Pfns some{7, 8};
    (void)machine.faults(some, 0);
    (void)machine.installed(SMIG_OWED_DEMAND, Pfns{7}, 5, 1);
    CHECK(find(machine.tick(OwedLimits{}.answer - 1), OwedDo::send_fetch) == nullptr);
    const OwedActions late = machine.tick(OwedLimits{}.answer);
    const OwedAction* fetch = find(late, OwedDo::send_fetch);
    REQUIRE(fetch != nullptr);
    CHECK(fetch->pfns == Pfns{8});
    CHECK(fetch->again);
    CHECK(find(machine.tick(3 * OwedLimits{}.answer - 1), OwedDo::send_fetch) == nullptr);
    CHECK(find(machine.tick(3 * OwedLimits{}.answer), OwedDo::send_fetch) != nullptr);
}

TEST_CASE("every installed frame is acknowledged, counted for its connection") {
    OwedMachine machine = connected();
    CHECK(machine.installed(SMIG_OWED_PUSH, Pfns{1}, 9, 0)[0].frames == 1);
    CHECK(machine.installed(SMIG_OWED_PUSH, Pfns{2}, 8, 0)[0].frames == 2);
    CHECK(machine.installed(SMIG_OWED_DEMAND, Pfns{3}, 7, 0)[0].frames == 1);
    (void)machine.lost(SMIG_OWED_PUSH, 0);
    CHECK(machine.installed(SMIG_OWED_PUSH, Pfns{4}, 6, 0).empty());
    (void)machine.tick(1'000'000);
    (void)machine.connected(SMIG_OWED_PUSH, 1'000'000);
    CHECK(machine.installed(SMIG_OWED_PUSH, Pfns{5}, 5, 1'000'000)[0].frames == 1);
}

TEST_CASE("a new demand connection has the module say anew what is waited for") {
    OwedMachine machine = connected();
    (void)machine.faults(Pfns{7}, 0);
    CHECK(find(machine.lost(SMIG_OWED_DEMAND, 0), OwedDo::disconnect) != nullptr);
    CHECK(machine.faults(Pfns{8}, 0).empty());
    CHECK(find(machine.tick(OwedLimits{}.first_pause), OwedDo::connect, SMIG_OWED_DEMAND) != nullptr);
    const OwedActions anew = machine.connected(SMIG_OWED_DEMAND, 20);
    CHECK(find(anew, OwedDo::send_hello) != nullptr);
    CHECK(find(anew, OwedDo::repeat) != nullptr);
    CHECK(machine.faults(Pfns{7, 8}, 20)[0].pfns == Pfns{7, 8});
    CHECK(find(machine.connected(SMIG_OWED_PUSH, 20), OwedDo::repeat) == nullptr);
}

TEST_CASE("connections are made anew for ever, ever more slowly up to a bound") {
    OwedMachine machine(OwedLimits{});
    (void)machine.begin(0);
    std::int64_t now = 0;
    int connects = 0;
    for (int turn = 0; turn < 1000; ++turn) {
        (void)machine.lost(SMIG_OWED_DEMAND, now);
        REQUIRE(machine.deadline_ms() > now);
        const std::int64_t before = now;
        while (find(machine.tick(now), OwedDo::connect, SMIG_OWED_DEMAND) == nullptr) {
            now = std::max(now + 1, machine.deadline_ms());
            REQUIRE(now < before + 2 * OwedLimits{}.most_pause);
        }
        ++connects;
    }
    CHECK(connects == 1000);
    CHECK_FALSE(machine.over());
}

TEST_CASE("it is over when nothing is missing, by an installed page or by a look") {
    OwedMachine machine = connected();
    (void)machine.installed(SMIG_OWED_DEMAND, Pfns{1}, 1, 0);
    CHECK_FALSE(machine.over());
    CHECK(find(machine.tick(OwedLimits{}.look_every), OwedDo::look) != nullptr);
    machine.left(1);
    CHECK_FALSE(machine.over());
    machine.left(0);
    CHECK(machine.over());
    CHECK(machine.tick(1'000'000).empty());
    OwedMachine other = connected();
    (void)other.installed(SMIG_OWED_PUSH, Pfns{1}, 0, 0);
    CHECK(other.over());
}

TEST_CASE("a source that falls silent though pages are missing is asked to begin afresh") {
    OwedMachine machine = connected();
    const std::int64_t quiet = OwedLimits{}.quiet;
    CHECK(find(machine.tick(quiet - 1), OwedDo::disconnect) == nullptr);
    CHECK(find(machine.tick(quiet), OwedDo::disconnect, SMIG_OWED_PUSH) != nullptr);
    CHECK(find(machine.tick(quiet + OwedLimits{}.first_pause), OwedDo::connect, SMIG_OWED_PUSH) != nullptr);
    const OwedActions hello = machine.connected(SMIG_OWED_PUSH, quiet + 20);
    REQUIRE(find(hello, OwedDo::send_hello) != nullptr);
    CHECK(find(hello, OwedDo::send_hello)->afresh);
    (void)machine.lost(SMIG_OWED_PUSH, quiet + 30);
    (void)machine.tick(quiet + 1000);
    CHECK_FALSE(find(machine.connected(SMIG_OWED_PUSH, quiet + 1000), OwedDo::send_hello)->afresh);
}

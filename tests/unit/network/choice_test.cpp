// SPDX-License-Identifier: Apache-2.0
// Which address stays and which follow.
#include <doctest/doctest.h>

#include "agent/network/choice.hpp"

using namespace smig;

namespace {

IpAddress ip(const char* text) {
    return parse_ip(text).value_or(IpAddress{});
}

const std::vector<LocalAddress> kTwoNics = {
    {ip("10.8.0.1"), 24, 2, "eth0", "0000:00:03.0", false},
    {ip("10.9.0.1"), 24, 3, "eth1", "0000:00:04.0", false},
    {ip("172.17.0.1"), 16, 4, "docker0", "", false},
    {ip("fd08::1"), 64, 2, "eth0", "0000:00:03.0", false},
};

const IpAddress kPeer = ip("10.9.0.2");
const IpAddress kRouteSource = ip("10.9.0.1");

std::string refusal(const NetworkOptions& options, const std::vector<LocalAddress>& addresses = kTwoNics) {
    const auto plan = choose_addresses(options, kPeer, kRouteSource, addresses);
    REQUIRE_FALSE(plan.ok());
    CHECK(plan.error().remedy == Remedy::refused);
    return plan.error().text;
}

bool says(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

std::vector<std::string> follows(const Result<NetworkPlan>& plan) {
    std::vector<std::string> names;
    for (const FollowAddress& follow : plan.value().follow) names.push_back(to_string(follow.address));
    return names;
}

}  // namespace

TEST_CASE("without options the address towards the target stays and all others on cards follow") {
    const auto plan = choose_addresses({}, kPeer, kRouteSource, kTwoNics);
    REQUIRE(plan.ok());
    CHECK(plan.value().stay == kRouteSource);
    CHECK(plan.value().stay_interface == "eth1");
    CHECK(plan.value().stay_prefix == 24);
    CHECK(plan.value().stay_bus_path == "0000:00:04.0");
    CHECK(plan.value().peer == kPeer);
    CHECK(follows(plan) == std::vector<std::string>{"10.8.0.1", "fd08::1"});
    CHECK(describe_plan(plan.value()).size() == 3);
}

TEST_CASE("one card with two addresses is enough") {
    const std::vector<LocalAddress> addresses = {{ip("10.9.0.1"), 24, 2, "eth0", "a", false},
                                                 {ip("10.9.0.100"), 24, 2, "eth0", "a", false}};
    const auto plan = choose_addresses({}, kPeer, kRouteSource, addresses);
    REQUIRE(plan.ok());
    CHECK(follows(plan) == std::vector<std::string>{"10.9.0.100"});
}

TEST_CASE("options choose") {
    auto plan = choose_addresses({"10.8.0.1", {}, {}}, kPeer, kRouteSource, kTwoNics);
    REQUIRE(plan.ok());
    CHECK(plan.value().stay == ip("10.8.0.1"));
    CHECK(follows(plan) == std::vector<std::string>{"10.9.0.1", "fd08::1"});

    plan = choose_addresses({"", {"172.17.0.1", "10.8.0.1", "10.8.0.1"}, {}}, kPeer, kRouteSource, kTwoNics);
    REQUIRE(plan.ok());
    CHECK(follows(plan) == std::vector<std::string>{"172.17.0.1", "10.8.0.1"});

    plan = choose_addresses({"", {}, {"docker0"}}, kPeer, kRouteSource, kTwoNics);
    REQUIRE(plan.ok());
    CHECK(follows(plan) == std::vector<std::string>{"172.17.0.1"});
}

TEST_CASE("a refusal says which option to use") {
    CHECK(says(refusal({}, {{ip("10.9.0.1"), 24, 2, "eth0", "a", false}}),
               "--follow ADDRESS or --stay ADDRESS"));
    CHECK(says(refusal({}, {}), "--stay"));
    CHECK(says(refusal({"10.1.1.1", {}, {}}), "--stay 10.1.1.1 is not a global address of this machine"));
    CHECK(says(refusal({"nonsense", {}, {}}), "--stay nonsense is not an IP address"));
    CHECK(says(refusal({"fd08::1", {}, {}}), "one is IPv4"));
    CHECK(says(refusal({"172.17.0.1", {}, {}}), "stands on no network card"));
    CHECK(says(refusal({"", {"10.1.1.1"}, {}}), "10.8.0.1 on eth0"));
    CHECK(says(refusal({"", {"nonsense"}, {}}), "--follow nonsense"));
    CHECK(says(refusal({"", {"10.9.0.1"}, {}}), "cannot both stay and follow"));
    CHECK(says(refusal({"", {}, {"eth7"}}), "--service-if eth7"));
    CHECK(says(refusal({"", {}, {"eth1"}}), "--service-if eth1"));
    CHECK_FALSE(choose_addresses({}, ip("127.0.0.1"), kRouteSource, kTwoNics).ok());
}

TEST_CASE("the address that an earlier move has set stays, though a follow address has become the first") {
    const std::vector<LocalAddress> addresses = {{ip("10.9.0.100"), 24, 2, "eth0", "a", false},
                                                 {ip("10.9.0.2"), 24, 2, "eth0", "a", true},
                                                 {ip("10.8.0.7"), 24, 3, "eth1", "b", false}};
    auto plan = choose_addresses({}, ip("10.9.0.3"), ip("10.9.0.100"), addresses);
    REQUIRE(plan.ok());
    CHECK(plan.value().stay == ip("10.9.0.2"));
    CHECK(follows(plan) == std::vector<std::string>{"10.9.0.100", "10.8.0.7"});
    // Not when the target is reached by another card.
    plan = choose_addresses({}, ip("10.8.0.9"), ip("10.8.0.7"), addresses);
    REQUIRE(plan.ok());
    CHECK(plan.value().stay == ip("10.8.0.7"));
}

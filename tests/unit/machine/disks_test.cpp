// SPDX-License-Identifier: Apache-2.0
// check_disks() takes the source's text as hostile.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "agent/machine/disks.hpp"

using namespace smig;
using nlohmann::json;

TEST_CASE("a disk that is not here is refused by name") {
    const json source = {{"disks", {{{"name", "vdq"}, {"path", "0000:0f:1f.7"}, {"id", "serial:s"}}}}};
    const auto reasons = check_disks(source.dump());
    REQUIRE(reasons.ok());
    REQUIRE(reasons.value().size() == 1);
    CHECK(reasons.value().front().find("disk vdq is not there") != std::string::npos);
    CHECK(reasons.value().front().find("0000:0f:1f.7") != std::string::npos);
}

TEST_CASE("a source without disks is content with any") {
    const auto reasons = check_disks("{}");
    REQUIRE(reasons.ok());
    CHECK(reasons.value().empty());
}

TEST_CASE("what is no description, or asks for too much, is turned down") {
    CHECK_FALSE(check_disks("").ok());
    CHECK_FALSE(check_disks("[1]").ok());
    json greedy = {{"disks", json::array()}, {"probes", json::array()}};
    for (int i = 0; i < 1000; ++i)
        greedy["probes"].push_back({{"disk", "vda"}, {"offset", 0}, {"length", 4096}});
    const auto reasons = check_disks(greedy.dump());
    REQUIRE(reasons.ok());
    CHECK(reasons.value().size() == 1);
    for (const json& disks : {json(1), json("x"), json::array({1, nullptr, "x", json::array()})}) {
        (void)check_disks(json{{"disks", disks}, {"probes", disks}}.dump());
    }
}

TEST_CASE("a machine without disks has nothing to prove") {
    const auto probes = flush_disk_probes(R"({"format": 1, "disks": []})");
    REQUIRE(probes.ok());
    CHECK(json::parse(probes.value().description())["probes"].empty());
    CHECK_FALSE(flush_disk_probes("no json").ok());
}

TEST_CASE("a written disk that nothing tells from a copy is refused") {
    const json source = {
        {"disks", {{{"name", "vdq"}, {"path", "p"}, {"id", ""}, {"bytes", 1 << 20}, {"swap", true}}}}};
    const auto probes = flush_disk_probes(source.dump());
    REQUIRE_FALSE(probes.ok());
    CHECK(probes.error().text.find("disk vdq cannot be told from a copy") != std::string::npos);
}

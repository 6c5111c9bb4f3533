// SPDX-License-Identifier: Apache-2.0
// The hand-over page: bounds, and what a hostile target may write there.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include "agent/network/identity.hpp"

using namespace smig;
using nlohmann::json;

namespace {

Handover example(std::size_t nics) {
    Handover handover;
    for (std::size_t i = 0; i < nics; ++i) {
        handover.nics.push_back({"0000:00:" + std::to_string(10 + i) + ".0", "eth" + std::to_string(i),
                                 parse_mac("52:54:00:00:00:02").value_or(MacAddress{})});
    }
    handover.stay = parse_ip("10.9.0.2").value_or(IpAddress{});
    handover.stay_prefix = 24;
    handover.stay_bus_path = "0000:00:10.0";
    handover.gateway = parse_ip("10.9.0.254").value_or(IpAddress{});
    handover.source_stay = parse_ip("10.9.0.1").value_or(IpAddress{});
    handover.control_port = 40000;
    handover.epoch.fill(0xab);
    handover.boot_nonce.fill(0x01);
    handover.hostname = "landing";
    return handover;
}

}  // namespace

TEST_CASE("a hand-over reads back as it was written, also from a page filled up with zeros") {
    std::string blob = format_handover(example(3)).value();
    blob.resize(SMIG_WIRE_HANDOVER_LEN, '\0');
    const auto read = parse_handover(blob);
    REQUIRE(read.ok());
    const Handover& handover = read.value();
    const Handover expected = example(3);
    REQUIRE(handover.nics.size() == 3);
    CHECK(handover.nics[2].bus_path == expected.nics[2].bus_path);
    CHECK(handover.nics[2].name == "eth2");
    CHECK(handover.nics[2].mac == expected.nics[2].mac);
    CHECK(handover.stay == expected.stay);
    CHECK(handover.stay_prefix == 24);
    CHECK(handover.stay_bus_path == expected.stay_bus_path);
    CHECK(handover.gateway == expected.gateway);
    CHECK(handover.source_stay == expected.source_stay);
    CHECK(handover.control_port == 40000);
    CHECK(handover.epoch == expected.epoch);
    CHECK(handover.boot_nonce == expected.boot_nonce);
    CHECK(handover.hostname == "landing");
}

TEST_CASE("a machine with too many cards for the page is refused, and a full page is read") {
    std::size_t most = 0;
    for (std::size_t nics = 1; nics < 64; ++nics) {
        const auto blob = format_handover(example(nics));
        if (!blob) {
            CHECK(blob.error().text.find("too many network cards") != std::string::npos);
            break;
        }
        CHECK(blob.value().size() <= SMIG_WIRE_HANDOVER_LEN);
        CHECK(parse_handover(blob.value()).ok());
        most = nics;
    }
    CHECK(most >= 16);
    CHECK(most < 63);
}

TEST_CASE("what a target must not write is refused, never thrown") {
    CHECK_FALSE(parse_handover("").ok());
    CHECK_FALSE(parse_handover(std::string(SMIG_WIRE_HANDOVER_LEN, '\0')).ok());
    CHECK_FALSE(parse_handover(std::string(SMIG_WIRE_HANDOVER_LEN + 1, ' ')).ok());
    CHECK_FALSE(parse_handover(std::string(3000, '[')).ok());
    const std::string good = format_handover(example(1)).value();
    for (std::size_t length = 0; length < good.size(); ++length)
        CHECK_FALSE(parse_handover(good.substr(0, length)).ok());

    const auto with = [&](const char* pointer, const json& value) {
        json blob = json::parse(good);
        blob[json::json_pointer(pointer)] = value;
        return parse_handover(blob.dump()).ok();
    };
    CHECK(with("/stay/prefix", 16));
    CHECK_FALSE(with("/format", 2));
    CHECK_FALSE(with("/stay/address", "127.0.0.1"));
    CHECK_FALSE(with("/stay/address", "nonsense"));
    CHECK_FALSE(with("/stay/address", 7));
    CHECK_FALSE(with("/stay/prefix", 33));
    CHECK_FALSE(with("/stay/prefix", 0));
    CHECK_FALSE(with("/stay/prefix", -1));
    CHECK_FALSE(with("/source/address", "fd09::1"));
    CHECK_FALSE(with("/source/port", 0));
    CHECK_FALSE(with("/source/port", 65536));
    CHECK_FALSE(with("/gateway", "fd09::1"));
    CHECK_FALSE(with("/epoch", "ab"));
    CHECK_FALSE(with("/nonce", std::string(32, 'g')));
    CHECK_FALSE(with("/nics/0/mac", "01:00:5e:00:00:01"));
    CHECK_FALSE(with("/nics/0/mac", nullptr));
    CHECK_FALSE(with("/nics/0/bus", ""));
    CHECK_FALSE(with("/nics/0/bus", std::string(200, 'b')));
    for (const char* field : {"/stay", "/source", "/epoch", "/nonce", "/nics/0"}) {
        for (const json& value : {json(nullptr), json(1), json("x"), json::array(), json::object()})
            CHECK_FALSE(with(field, value));
    }
}

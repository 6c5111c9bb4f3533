// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "agent/landing/boot_options.hpp"

using namespace smig;

TEST_CASE("networks, the address to listen on and test aids are read from the command line") {
    const BootOptions options = parse_boot_options(
        "BOOT_IMAGE=/vmlinuz console=ttyS0 selfmigrate.net=eth1,10.9.0.2/24,10.9.0.254 "
        "selfmigrate.net=52:54:00:00:00:02,fd09::2/64 selfmigrate.listen=10.9.0.2:7077 selfmigrate.insecure "
        "selfmigrate.hold=ready:500 quiet\n");
    CHECK(options.wrong.empty());
    REQUIRE(options.networks.size() == 2);
    CHECK(options.networks[0].interface == "eth1");
    CHECK(to_string(options.networks[0].address) == "10.9.0.2");
    CHECK(options.networks[0].prefix == 24);
    CHECK(to_string(options.networks[0].gateway) == "10.9.0.254");
    CHECK(options.networks[1].interface == "52:54:00:00:00:02");
    CHECK(options.networks[1].prefix == 64);
    CHECK_FALSE(options.networks[1].gateway);
    CHECK(options.insecure);
    const auto arguments = receive_arguments(options);
    REQUIRE(arguments.ok());
    CHECK(arguments.value() == std::vector<std::string>{"receive", "--listen", "10.9.0.2:7077", "--insecure",
                                                        "--hold", "ready:500"});
}

TEST_CASE("without an address to listen on the first network's is taken, and without that there is none") {
    const auto arguments = receive_arguments(parse_boot_options("selfmigrate.net=eth0,10.9.0.2/24"));
    REQUIRE(arguments.ok());
    CHECK(arguments.value() == std::vector<std::string>{"receive", "--listen", "10.9.0.2"});
    CHECK_FALSE(receive_arguments(parse_boot_options("quiet")).ok());
}

TEST_CASE("wrong words are named and the others still count") {
    for (const char* wrong :
         {"selfmigrate.net=eth0", "selfmigrate.net=,10.9.0.2/24", "selfmigrate.net=eth0,10.9.0.2",
          "selfmigrate.net=eth0,10.9.0.2/33", "selfmigrate.net=eth0,10.9.0.2/0",
          "selfmigrate.net=eth0,10.9.0.x/24", "selfmigrate.net=eth0,127.0.0.1/8",
          "selfmigrate.net=eth0,10.9.0.2/24,nobody", "selfmigrate.net=eth0,10.9.0.2/24,fd09::1",
          "selfmigrate.net=eth0,10.9.0.2/99999999999999999999", "selfmigrate.insecure=1",
          "selfmigrate.listen", "selfmigrate.bogus=1"}) {
        CAPTURE(wrong);
        const BootOptions options =
            parse_boot_options(std::string(wrong) + " selfmigrate.net=eth7,10.7.0.1/24");
        REQUIRE(options.wrong.size() == 1);
        CHECK(options.wrong.front().find(wrong) == 0);
        REQUIRE(options.networks.size() == 1);
        CHECK(options.networks.front().interface == "eth7");
    }
}

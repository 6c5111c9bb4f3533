// SPDX-License-Identifier: Apache-2.0
// apply_handover() against a real kernel, in a network namespace of its own; without the right to make one it
// says so and passes.
#include <doctest/doctest.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "agent/network/announcement.hpp"
#include "agent/network/identity.hpp"
#include "agent/network/netlink.hpp"
#include "agent/network/stay_routes.hpp"

using namespace smig;

namespace {

constexpr int kSkipped = 77;

IpAddress ip(const char* text) {
    return parse_ip(text).value_or(IpAddress{});
}

// A failed expectation inside the namespace's process.
struct Failed {
    std::string what;
};

void expect(bool condition, const std::string& what) {
    if (!condition) throw Failed{what};
}

// Runs `body` in a child process in a fresh network namespace, with interfaces "stay0" and "peer0" (a pair,
// both up).
void in_own_network(const std::function<void(Netlink&, unsigned stay)>& body) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        if (::unshare(CLONE_NEWNET) != 0) ::_exit(kSkipped);
        int code = 0;
        try {
            Result<Netlink> opened = Netlink::open();
            expect(opened.ok(), "netlink");
            Netlink& netlink = opened.value();
            NetlinkMessage request(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, ifinfomsg{});
            request.add(IFLA_IFNAME, "stay0", 6);
            const std::size_t info = request.open_nest(IFLA_LINKINFO);
            request.add(IFLA_INFO_KIND, "veth", 4);
            const std::size_t data = request.open_nest(IFLA_INFO_DATA);
            const std::size_t peer = request.open_nest(VETH_INFO_PEER);
            request.add_raw(ifinfomsg{});
            request.add(IFLA_IFNAME, "peer0", 6);
            request.close_nest(peer);
            request.close_nest(data);
            request.close_nest(info);
            if (netlink.change(request) == EOPNOTSUPP) ::_exit(kSkipped);
            const unsigned stay = ::if_nametoindex("stay0");
            expect(stay != 0, "the pair exists");
            expect(netlink.set_up(stay) == 0 && netlink.set_up(::if_nametoindex("peer0")) == 0,
                   "the pair is up");
            body(netlink, stay);
        } catch (const Failed& failed) {
            std::fprintf(stderr, "in the namespace: %s\n", failed.what.c_str());
            code = 1;
        }
        ::_exit(code);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    if (WEXITSTATUS(status) == kSkipped) {
        MESSAGE("no right to make a network namespace: not tested");
        return;
    }
    CHECK(WEXITSTATUS(status) == 0);
}

NetworkPlan plan_on(unsigned stay, const char* address, unsigned prefix, std::vector<FollowAddress> follow) {
    NetworkPlan plan;
    plan.stay = ip(address);
    plan.stay_prefix = prefix;
    plan.stay_index = stay;
    plan.stay_interface = "stay0";
    plan.stay_bus_path = "0000:00:03.0";
    plan.follow = std::move(follow);
    plan.nics.push_back({"stay0", "0000:00:03.0", stay, {}});
    return plan;
}

Handover handover_of(const char* address, unsigned prefix, const char* source) {
    Handover handover;
    handover.nics.push_back({"0000:00:03.0", "eth0", parse_mac("52:54:00:00:00:02").value_or(MacAddress{})});
    handover.stay = ip(address);
    handover.stay_prefix = prefix;
    handover.stay_bus_path = "0000:00:03.0";
    handover.source_stay = ip(source);
    handover.control_port = 4000;
    return handover;
}

bool has_address(Netlink& netlink, const char* text) {
    bool found = false;
    expect(netlink.each_address(
               [&](const InterfaceAddress& address) { found = found || address.address == ip(text); }) == 0,
           "addresses");
    return found;
}

struct FoundRoute {
    Route route;
    bool found = false;
};

FoundRoute default_route(Netlink& netlink, int af) {
    FoundRoute result;
    expect(netlink.each_route(af,
                              [&](const Route& route, const nlmsghdr&) {
                                  if (route.is_default() && route.protocol != RTPROT_KERNEL)
                                      result = {route, true};
                              }) == 0,
           "routes");
    return result;
}

void apply(const Handover& handover, const NetworkPlan& plan) {
    const Result<void> applied = apply_handover(handover, plan);
    expect(applied.ok(), applied.ok() ? "" : applied.error().text);
}

}  // namespace

TEST_CASE("the stay address is replaced and a follow address in the same network is kept") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        expect(netlink.add_address(stay, ip("10.9.0.1"), 24) == 0, "stay");
        expect(netlink.add_address(stay, ip("10.9.0.100"), 24) == 0, "follow");
        expect(netlink.set_route({}, 0, ip("10.9.0.254"), stay) == 0, "default route");
        const NetworkPlan plan = plan_on(stay, "10.9.0.1", 24, {{ip("10.9.0.100"), 24, stay, "stay0"}});
        apply(handover_of("10.9.0.2", 24, "10.9.0.1"), plan);
        expect(!has_address(netlink, "10.9.0.1"), "the source's address is gone");
        expect(has_address(netlink, "10.9.0.2"), "the target's address is there");
        expect(has_address(netlink, "10.9.0.100"), "the follow address is kept");
        expect(default_route(netlink, AF_INET).found, "the default route is kept");
        apply(handover_of("10.9.0.2", 24, "10.9.0.1"), plan);
        expect(has_address(netlink, "10.9.0.2"), "a second call changes nothing");
        unsigned origin = 0;
        expect(netlink.each_address([&](const InterfaceAddress& address) {
            if (address.address == ip("10.9.0.2")) origin = address.origin;
        }) == 0,
               "addresses");
        expect(origin == kStayOrigin, "the target's address is known as such at the next move");
        Route route;
        expect(netlink.route_to(ip("10.9.0.1"), route) && route.type == RTN_UNICAST,
               "the source is reached by wire");
    });
}

TEST_CASE("a route that names the stay address as its source names the target's afterwards") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        expect(netlink.add_address(stay, ip("10.9.0.1"), 24) == 0, "stay");
        rtmsg header{};
        header.rtm_family = AF_INET;
        header.rtm_table = RT_TABLE_MAIN;
        header.rtm_protocol = RTPROT_DHCP;
        header.rtm_type = RTN_UNICAST;
        NetlinkMessage request(RTM_NEWROUTE, NLM_F_CREATE, header);
        request.add(RTA_GATEWAY, ip("10.9.0.254"));
        request.add(RTA_OIF, stay);
        request.add(RTA_PREFSRC, ip("10.9.0.1"));
        request.add(RTA_PRIORITY, 100u);
        expect(netlink.change(request) == 0, "route");
        apply(handover_of("10.9.0.2", 24, "10.9.0.1"), plan_on(stay, "10.9.0.1", 24, {}));
        const FoundRoute after = default_route(netlink, AF_INET);
        expect(after.found, "the default route is there");
        expect(after.route.preferred_source == ip("10.9.0.2"), "with the new source");
        expect(after.route.gateway == ip("10.9.0.254"), "and the old gateway");
    });
}

TEST_CASE(
    "more routes of the stay address than can be made anew are refused ahead, and cost the clone nothing "
    "more") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        expect(netlink.add_address(stay, ip("10.9.0.1"), 24) == 0, "stay");
        for (std::size_t i = 0; i <= kMaxStayRoutes; ++i) {
            expect(check_stay_routes(netlink, ip("10.9.0.1")).ok(), "so many are not too many");
            rtmsg header{};
            header.rtm_family = AF_INET;
            header.rtm_dst_len = 24;
            header.rtm_table = RT_TABLE_MAIN;
            header.rtm_protocol = RTPROT_STATIC;
            header.rtm_type = RTN_UNICAST;
            NetlinkMessage request(RTM_NEWROUTE, NLM_F_CREATE, header);
            request.add(RTA_DST, ip(("172.16." + std::to_string(i) + ".0").c_str()));
            request.add(RTA_OIF, stay);
            request.add(RTA_PREFSRC, ip("10.9.0.1"));
            expect(netlink.change(request) == 0, "route");
        }
        const auto refused = check_stay_routes(netlink, ip("10.9.0.1"));
        expect(!refused && refused.error().remedy == Remedy::refused, "one more is");
        const auto applied =
            apply_handover(handover_of("10.9.0.2", 24, "10.9.0.1"), plan_on(stay, "10.9.0.1", 24, {}));
        expect(!applied, "it is said that one is lost");
        expect(has_address(netlink, "10.9.0.2"), "but the clone can be reached");
        Route route;
        expect(netlink.route_to(ip("172.16.3.1"), route) && route.preferred_source == ip("10.9.0.2"),
               "and has the others");
    });
}

TEST_CASE("in another network the default route becomes the target's") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        expect(netlink.add_address(stay, ip("10.9.0.1"), 24) == 0, "stay");
        expect(netlink.set_route({}, 0, ip("10.9.0.254"), stay) == 0, "default route");
        Handover handover = handover_of("10.77.0.2", 16, "10.9.0.1");
        handover.gateway = ip("10.77.0.1");
        apply(handover, plan_on(stay, "10.9.0.1", 24, {}));
        expect(default_route(netlink, AF_INET).route.gateway == ip("10.77.0.1"),
               "the gateway is the target's");
        Route route;
        expect(netlink.route_to(ip("10.9.0.1"), route) && route.gateway == ip("10.77.0.1"),
               "and leads to the source");
    });
}

TEST_CASE("a default route through the network of a follow address stays") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        expect(netlink.add_address(stay, ip("10.9.0.1"), 24) == 0, "stay");
        expect(netlink.add_address(stay, ip("10.8.0.5"), 24) == 0, "follow");
        expect(netlink.set_route({}, 0, ip("10.8.0.254"), stay) == 0, "default route");
        Handover handover = handover_of("10.77.0.2", 16, "10.9.0.1");
        handover.gateway = ip("10.77.0.1");
        apply(handover, plan_on(stay, "10.9.0.1", 24, {{ip("10.8.0.5"), 24, stay, "stay0"}}));
        expect(default_route(netlink, AF_INET).route.gateway == ip("10.8.0.254"),
               "the service's gateway is kept");
        Route route;
        expect(netlink.route_to(ip("10.9.0.1"), route) && route.gateway == ip("10.77.0.1"),
               "the source has its own route");
    });
}

TEST_CASE("IPv6 addresses are usable at once") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        if (netlink.add_address(stay, ip("fd09::1"), 64) == EOPNOTSUPP) return;
        expect(netlink.add_address(stay, ip("fd09::100"), 64) == 0, "follow");
        expect(netlink.set_route({}, 0, ip("fd09::fe"), stay) == 0, "default route");
        apply(handover_of("fd09::2", 64, "fd09::1"),
              plan_on(stay, "fd09::1", 64, {{ip("fd09::100"), 64, stay, "stay0"}}));
        expect(!has_address(netlink, "fd09::1"), "the source's address is gone");
        expect(has_address(netlink, "fd09::100"), "the follow address is kept");
        bool tentative = true;
        expect(netlink.each_address([&](const InterfaceAddress& address) {
            if (address.address == ip("fd09::2")) tentative = (address.flags & IFA_F_TENTATIVE) != 0;
        }) == 0,
               "addresses");
        expect(!tentative, "the target's address is there and not tentative");
        expect(default_route(netlink, AF_INET6).found, "the default route is kept");
    });
}

TEST_CASE("the target's MAC is taken, and announcements leave") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        expect(netlink.add_address(stay, ip("10.9.0.1"), 24) == 0, "stay");
        const NetworkPlan plan =
            plan_on(stay, "10.9.0.1", 24,
                    {{ip("10.9.0.100"), 24, stay, "stay0"}, {ip("fd09::100"), 64, stay, "stay0"}});
        apply(handover_of("10.9.0.2", 24, "10.9.0.1"), plan);
        std::array<unsigned char, 6> mac{};
        ifinfomsg header{};
        header.ifi_index = static_cast<int>(stay);
        NetlinkMessage request(RTM_GETLINK, 0, header);
        expect(netlink.ask(request,
                           [&](const nlmsghdr& answer) {
                               const auto bytes =
                                   find_attribute(attributes_of(answer, sizeof(ifinfomsg)), IFLA_ADDRESS);
                               if (bytes.size() == mac.size())
                                   std::copy(bytes.begin(), bytes.end(), mac.begin());
                           }) == 0,
               "link");
        expect(mac == parse_mac("52:54:00:00:00:02").value_or(MacAddress{}), "the MAC is the target's");
        const auto failures = announce(plan, 1);
        expect(failures.empty(), failures.empty() ? "" : failures.front());
    });
}

TEST_CASE("a target address on a card that the guest lacks is an error that names it") {
    in_own_network([](Netlink& netlink, unsigned stay) {
        expect(netlink.add_address(stay, ip("10.9.0.1"), 24) == 0, "stay");
        Handover handover = handover_of("10.9.0.2", 24, "10.9.0.1");
        handover.stay_bus_path = "0000:00:09.0";
        const Result<void> applied = apply_handover(handover, plan_on(stay, "10.9.0.1", 24, {}));
        expect(!applied.ok() && applied.error().text.find("0000:00:09.0") != std::string::npos, "named");
    });
}

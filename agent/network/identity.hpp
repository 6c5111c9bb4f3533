// SPDX-License-Identifier: Apache-2.0
// Which addresses stay and which follow, what the target hands over to the clone, and how the clone takes it
// on.
//
//   source:  plan_network()                   before the stop; the plan lies in the stop process's memory and
//   travels target:  describe_handover()              the agents' part of the hand-over page, given to
//   SMIG_IOC_JUMP clone:   parse_handover(), apply_handover(), close_silently(), ... go ..., announce()
//
// The clone's part runs single-threaded while every other task is frozen: it waits for nobody, resolves
// nothing, starts no process and makes a bounded number of system calls.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agent/base/result.hpp"
#include "agent/network/address.hpp"
#include "common/wire.h"

namespace smig {

// From the command line, as written.
struct NetworkOptions {
    std::string stay;                             // empty: the local address of the route to the target
    std::vector<std::string> follow;              // empty: see plan_network
    std::vector<std::string> service_interfaces;  // empty: every NIC
};

struct FollowAddress {
    IpAddress address;
    unsigned prefix = 0;
    unsigned interface_index = 0;
    std::string interface;
};

struct Nic {
    std::string name;
    std::string bus_path;  // agent/machine/bus_path.hpp; the same on both machines
    unsigned interface_index = 0;
    MacAddress mac{};
};

struct NetworkPlan {
    IpAddress peer;  // the target's stay address
    IpAddress stay;  // the source's
    unsigned stay_prefix = 0;
    unsigned stay_index = 0;
    std::string stay_interface;
    std::string stay_bus_path;  // of the NIC that stay_interface is or stands on
    std::vector<FollowAddress> follow;
    std::vector<Nic> nics;  // every NIC of the guest that has a device
};

// IFA_PROTO of the address that apply_handover() gives a clone: it belongs to that VM, and stays at the next
// move too.
inline constexpr std::uint8_t kStayOrigin = 0xb5;

// On the source.  stay: the option, or the local address of the route to `peer`, or on that interface the one
// that an earlier move has set (by then a follow address may be the interface's first).  follow: the option,
// or every other global address of interfaces that are NICs (have a device) or stand on one (bond, bridge,
// VLAN), only of the service interfaces if any are named.  Error (refused): an address or interface that is
// not here, nothing that would follow, an address that both stays and follows; the text says which option to
// use.
Result<NetworkPlan> plan_network(const NetworkOptions& options, const IpAddress& peer);

// What the plan does, a line each, for a person ("stays: 10.9.0.1 on eth1", "follows: 10.8.0.1/24 on eth0").
std::vector<std::string> describe_plan(const NetworkPlan& plan);

using WireId = std::array<std::uint8_t, SMIG_WIRE_ID_LEN>;

// What the clone must know of the VM it wakes up on.
struct Handover {
    struct TargetNic {
        std::string bus_path;
        std::string name;
        MacAddress mac{};
    };
    std::vector<TargetNic> nics;
    IpAddress stay;  // the target's
    unsigned stay_prefix = 0;
    std::string stay_bus_path;  // of its NIC
    IpAddress gateway;          // default route of the stay network; none: family 0
    IpAddress source_stay;
    std::uint16_t control_port = 0;  // of the source, on source_stay
    WireId epoch{};
    WireId boot_nonce{};
    std::string hostname;  // of the target VM, for the report only
};

// On the target, in the landing environment: `local` is the address on which the source's connection arrived,
// `source` where it came from.  JSON of at most SMIG_WIRE_HANDOVER_LEN bytes.  Error (refused): `local` is on
// no NIC, or the machine has more NICs than fit.
Result<std::string> describe_handover(const IpAddress& local, const IpAddress& source,
                                      std::uint16_t control_port, const WireId& epoch,
                                      const WireId& boot_nonce);

// Pure.  JSON of at most SMIG_WIRE_HANDOVER_LEN bytes, trailing zero bytes allowed.  Error (protocol):
// anything else.
Result<Handover> parse_handover(std::string_view blob);
Result<std::string> format_handover(const Handover& handover);

// In the clone.  Gives each NIC the target's MAC, replaces the source's stay address by the target's (with
// the routes that hung on it), forgets neighbours learned for the two stay addresses.  Follow addresses and
// all other routes are kept. Repeatable: a second call finds nothing to do.  Error (fatal): the text says
// which step; nothing is undone.
Result<void> apply_handover(const Handover& handover, const NetworkPlan& plan);

// In the clone, once its fences are open: gratuitous ARP (request and reply) or unsolicited neighbour
// advertisement for each follow address, sent at once and again after `gap_ms`.  Best effort: a network that
// cannot be told does not fail the move; the returned texts say what failed.
std::vector<std::string> announce(const NetworkPlan& plan, unsigned gap_ms = 20);

// Closes a TCP socket so that its peer hears nothing (no FIN, no RST): TCP_REPAIR.  False when the kernel
// refused repair mode; the socket is closed all the same, and only the fence keeps its FIN in.
bool close_silently(int fd);

}  // namespace smig

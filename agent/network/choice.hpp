// SPDX-License-Identifier: Apache-2.0
// The pure part of plan_network(): options and what the machine has in, a plan or a refusal out.
#pragma once

#include <string>
#include <vector>

#include "agent/network/identity.hpp"

namespace smig {

// A global address of this machine.
struct LocalAddress {
    IpAddress address;
    unsigned prefix = 0;
    unsigned interface_index = 0;
    std::string interface;
    std::string bus_path;      // of the NIC below; empty: none
    bool from_a_move = false;  // set by apply_handover()
};

// `route_source`: the local address that the kernel would use towards `peer`, family 0 if it does not say.
// The plan's `nics` are left to the caller.
Result<NetworkPlan> choose_addresses(const NetworkOptions& options, const IpAddress& peer,
                                     const IpAddress& route_source,
                                     const std::vector<LocalAddress>& addresses);

}  // namespace smig

// SPDX-License-Identifier: Apache-2.0
// The network interfaces of this machine that stand on hardware.
#pragma once

#include <string>
#include <vector>

#include "agent/network/identity.hpp"

namespace smig {

// Interfaces with a device, by name.
std::vector<Nic> list_nics();

// The bus path of the NIC that this interface is, or, for a bond, bridge or VLAN, of the first one below it;
// empty: it stands on no hardware (lo, a tunnel, a container's bridge).
std::string bus_path_below(const std::string& interface);

}  // namespace smig

// SPDX-License-Identifier: Apache-2.0
// One source's connection, from HELLO to the jump.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>

#include "agent/peer/receiver.hpp"
#include "agent/wire/async_channel.hpp"

namespace smig {

// Returns when the session has failed and everything it held is given back.  `options` outlives it.  `ready`:
// a device that holds memory already, or none.
boost::asio::awaitable<void> run_session(const ReceiverOptions& options, const WireId& boot_nonce,
                                         boost::asio::ip::tcp::socket socket, std::unique_ptr<Device> ready);

}  // namespace smig

// SPDX-License-Identifier: Apache-2.0
// Plain TCP sockets between two given addresses.  No name is resolved, nothing waits longer than it is told.
#pragma once

#include <sys/socket.h>

#include <cstdint>

#include "agent/base/fd.hpp"
#include "agent/base/result.hpp"
#include "agent/wire/channel.hpp"

namespace smig {

struct SocketAddress {
    sockaddr_storage storage{};
    socklen_t length = 0;
};

// A tuned, non-blocking, close-on-exec connection from `local` (port 0: any) to `remote`.  Error: retry.
Result<Fd> connect_from(const SocketAddress& local, const SocketAddress& remote, std::int64_t timeout_ms,
                        const Pulse& pulse);

// The same without waiting: it is writable when there is an answer, which connect_answer() tells.  Error:
// retry.
Result<Fd> begin_connect(const SocketAddress& local, const SocketAddress& remote);
Result<void> connect_answer(int fd);

// A non-blocking, close-on-exec listener on exactly this address.  Error: refused.
Result<Fd> listen_on(const SocketAddress& local, int backlog);

// The port a socket is bound to; 0 on failure.
std::uint16_t local_port(int fd);

}  // namespace smig

// SPDX-License-Identifier: Apache-2.0
// Where a running move takes orders: a unix socket that only root can open.  One JSON object a line each way:
// {"status": true}, {"cancel": true} or {"switch_now": true}; the answer closes the connection.
#pragma once

#include <string>
#include <utility>

#include "agent/base/fd.hpp"
#include "agent/base/result.hpp"

namespace smig {

inline constexpr const char* kOrderSocketPath = "/run/selfmigrate.sock";
inline constexpr const char* kLastMovePath = "/var/lib/selfmigrate/last-move.json";

// The socket, and its name in the file system as long as this lives.  A process that was forked with it must
// not destroy it.
class OrderSocket {
public:
    // An abandoned socket is replaced.  Error (refused): another agent listens there.
    static Result<OrderSocket> listen(const std::string& path);

    OrderSocket(OrderSocket&& other) noexcept
        : fd_(std::move(other.fd_)), path_(std::exchange(other.path_, {})) {}
    OrderSocket& operator=(OrderSocket&&) = delete;
    ~OrderSocket();

    // For whoever accepts; the name stays with this.
    [[nodiscard]] Fd release_fd() { return std::move(fd_); }

private:
    OrderSocket(Fd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
    Fd fd_;
    std::string path_;
};

// Sends one order and gives the answer.  Error (refused): no move is under way.
Result<std::string> give_order(const std::string& path, const std::string& order);

}  // namespace smig

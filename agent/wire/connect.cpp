// SPDX-License-Identifier: Apache-2.0
#include "agent/wire/connect.hpp"

#include <netinet/in.h>
#include <poll.h>

#include <algorithm>

#include "agent/base/clock.hpp"

namespace smig {

namespace {

const sockaddr* generic(const SocketAddress& address) {
    return reinterpret_cast<const sockaddr*>(&address.storage);
}

Result<Fd> bound_socket(const SocketAddress& local, Remedy remedy) {
    Fd fd(::socket(local.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
    if (!fd) return errno_error(remedy, "socket");
    const int yes = 1;
    ::setsockopt(fd.get(), SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    tune_socket(fd.get());
    if (::bind(fd.get(), generic(local), local.length) != 0)
        return errno_error(remedy, "binding to the local address");
    return fd;
}

}  // namespace

Result<Fd> begin_connect(const SocketAddress& local, const SocketAddress& remote) {
    auto fd = bound_socket(local, Remedy::retry);
    if (!fd) return fd;
    if (::connect(fd.value().get(), generic(remote), remote.length) != 0 && errno != EINPROGRESS)
        return errno_error(Remedy::retry, "connecting");
    return fd;
}

Result<void> connect_answer(int fd) {
    int code = 0;
    socklen_t length = sizeof(code);
    if (::getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) != 0) code = errno;
    if (code != 0) return errno_error(Remedy::retry, "connecting", code);
    return {};
}

Result<Fd> connect_from(const SocketAddress& local, const SocketAddress& remote, std::int64_t timeout_ms,
                        const Pulse& pulse) {
    auto fd = begin_connect(local, remote);
    if (!fd) return fd;
    const int socket = fd.value().get();
    const std::int64_t deadline = mono_ms() + timeout_ms;
    for (;;) {
        if (pulse) pulse();
        const std::int64_t left = deadline - mono_ms();
        if (left <= 0) return Error{Remedy::retry, "connecting: no answer in time"};
        pollfd entry{socket, POLLOUT, 0};
        if (::poll(&entry, 1, static_cast<int>(std::min(left, kPulseMs))) > 0) break;
    }
    if (auto answer = connect_answer(socket); !answer) return answer.error();
    return fd;
}

Result<Fd> listen_on(const SocketAddress& local, int backlog) {
    auto fd = bound_socket(local, Remedy::refused);
    if (!fd) return fd;
    if (::listen(fd.value().get(), backlog) != 0) return errno_error(Remedy::refused, "listening");
    return fd;
}

std::uint16_t local_port(int fd) {
    sockaddr_storage storage{};
    socklen_t length = sizeof(storage);
    if (::getsockname(fd, reinterpret_cast<sockaddr*>(&storage), &length) != 0) return 0;
    if (storage.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
    if (storage.ss_family == AF_INET6)
        return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
    return 0;
}

}  // namespace smig

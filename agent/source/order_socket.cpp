// SPDX-License-Identifier: Apache-2.0
#include "agent/source/order_socket.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>

namespace smig {

namespace {

constexpr int kAnswerMs = 5'000;

Result<sockaddr_un> address_of(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof(address.sun_path)) return Error{Remedy::refused, path + ": too long a name"};
    std::memcpy(address.sun_path, path.data(), path.size());
    return address;
}

Fd new_socket() {
    return Fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
}

Result<Fd> connect_to(const std::string& path) {
    auto address = address_of(path);
    if (!address) return address.error();
    Fd fd = new_socket();
    if (!fd) return errno_error(Remedy::fatal, "socket");
    if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address.value()), sizeof(sockaddr_un)) != 0) {
        const int code = errno;
        const bool nobody = code == ENOENT || code == ECONNREFUSED;
        return errno_error(nobody ? Remedy::refused : Remedy::fatal, path, code);
    }
    return fd;
}

}  // namespace

Result<OrderSocket> OrderSocket::listen(const std::string& path) {
    if (connect_to(path)) return Error{Remedy::refused, "another move is under way here (" + path + ")"};
    auto address = address_of(path);
    if (!address) return address.error();
    ::unlink(path.c_str());
    Fd fd = new_socket();
    if (!fd) return errno_error(Remedy::fatal, "socket");
    // No moment in which others could open it.
    const mode_t mask = ::umask(0177);
    const bool bound =
        ::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address.value()), sizeof(sockaddr_un)) == 0;
    const int code = errno;
    ::umask(mask);
    if (!bound) return errno_error(Remedy::refused, path, code);
    if (::listen(fd.get(), 4) != 0) return errno_error(Remedy::refused, path);
    return OrderSocket(std::move(fd), path);
}

OrderSocket::~OrderSocket() {
    if (!path_.empty()) ::unlink(path_.c_str());
}

Result<std::string> give_order(const std::string& path, const std::string& order) {
    auto fd = connect_to(path);
    if (!fd) return fd.error();
    const std::string line = order + "\n";
    if (::send(fd.value().get(), line.data(), line.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(line.size()))
        return errno_error(Remedy::peer_lost, path);
    std::string answer;
    for (;;) {
        pollfd entry{fd.value().get(), POLLIN, 0};
        if (::poll(&entry, 1, kAnswerMs) <= 0)
            return Error{Remedy::peer_lost, "the agent does not answer; the guest may be stopped"};
        char buffer[4096];
        const ssize_t got = ::read(fd.value().get(), buffer, sizeof(buffer));
        if (got < 0) return errno_error(Remedy::peer_lost, path);
        if (got == 0) return answer;
        answer.append(buffer, static_cast<std::size_t>(got));
    }
}

}  // namespace smig

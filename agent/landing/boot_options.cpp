// SPDX-License-Identifier: Apache-2.0
#include "agent/landing/boot_options.hpp"

#include <fmt/format.h>

#include <optional>

#include "agent/machine/sysfs.hpp"

namespace smig {

namespace {

std::optional<std::string_view> value_of(std::string_view word, std::string_view key) {
    if (!word.starts_with(key) || word.size() <= key.size() || word[key.size()] != '=') return std::nullopt;
    return word.substr(key.size() + 1);
}

// INTERFACE|MAC,ADDRESS/PREFIX[,GATEWAY]; the reason if it is not that.
std::string parse_network(std::string_view text, BootNetwork& network) {
    const std::size_t comma = text.find(',');
    if (comma == 0 || comma == std::string_view::npos)
        return "expected INTERFACE|MAC,ADDRESS/PREFIX[,GATEWAY]";
    network.interface = text.substr(0, comma);
    text.remove_prefix(comma + 1);
    if (const std::size_t second = text.find(','); second != std::string_view::npos) {
        const auto gateway = parse_ip(text.substr(second + 1));
        if (!gateway) return "the gateway is no IP address";
        network.gateway = *gateway;
        text = text.substr(0, second);
    }
    const std::size_t slash = text.find('/');
    const auto address = parse_ip(text.substr(0, slash));
    if (!address || !is_global(*address)) return "the address is no global IP address";
    const auto prefix =
        slash == std::string_view::npos ? std::nullopt : sysfs::parse_number(text.substr(slash + 1));
    if (!prefix || *prefix == 0 || *prefix > address->bits()) return "the prefix length is wrong";
    if (network.gateway && network.gateway.family != address->family)
        return "the gateway is of another IP version";
    network.address = *address;
    network.prefix = static_cast<unsigned>(*prefix);
    return {};
}

}  // namespace

BootOptions parse_boot_options(std::string_view command_line) {
    BootOptions options;
    for (const std::string& word : sysfs::split_words(command_line)) {
        if (!word.starts_with("selfmigrate.")) continue;
        std::string reason;
        if (const auto net = value_of(word, "selfmigrate.net")) {
            BootNetwork network;
            reason = parse_network(*net, network);
            if (reason.empty()) options.networks.push_back(std::move(network));
        } else if (const auto listen = value_of(word, "selfmigrate.listen")) {
            options.listen = *listen;
        } else if (const auto hold = value_of(word, "selfmigrate.hold")) {
            options.holds.emplace_back(*hold);
        } else if (word == "selfmigrate.insecure") {
            options.insecure = true;
        } else {
            reason = "no such option";
        }
        if (!reason.empty()) options.wrong.push_back(fmt::format("{}: {}", word, reason));
    }
    return options;
}

Result<std::vector<std::string>> receive_arguments(const BootOptions& options) {
    std::string listen = options.listen;
    if (listen.empty()) {
        if (options.networks.empty()) {
            return Error{Remedy::refused,
                         "no address to listen on: give selfmigrate.net=... or selfmigrate.listen=ADDRESS on "
                         "the kernel command line"};
        }
        listen = to_string(options.networks.front().address);
    }
    std::vector<std::string> arguments{"receive", "--listen", listen};
    if (options.insecure) arguments.emplace_back("--insecure");
    for (const std::string& hold : options.holds) {
        arguments.emplace_back("--hold");
        arguments.push_back(hold);
    }
    return arguments;
}

}  // namespace smig

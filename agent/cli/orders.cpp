// SPDX-License-Identifier: Apache-2.0
#include "agent/cli/orders.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

#include "agent/cli/progress_view.hpp"
#include "agent/source/order_socket.hpp"

namespace smig {

namespace {

std::string text_of(const nlohmann::json& object, const char* name) {
    return object.is_object() && object.contains(name) && object[name].is_string()
               ? object[name].get<std::string>()
               : std::string();
}

int show_move(const std::string& answer, bool json) {
    const auto numbers = nlohmann::json::parse(answer, nullptr, false);
    if (!numbers.is_object()) {
        std::fprintf(stderr, "selfmigrate status: the agent's answer is none\n");
        return 1;
    }
    if (json) {
        std::printf("%s\n", numbers.dump().c_str());
        return 0;
    }
    std::printf("moving to %s, %s\n", text_of(numbers, "target").c_str(), text_of(numbers, "state").c_str());
    if (const std::uint64_t left = numbers.value("owed_left_pages", std::uint64_t{0}); left != 0)
        std::printf("the guest runs here; %.1f MiB of it are still owed\n", static_cast<double>(left) / 256);
    else if (numbers.value("pass", 0) != 0)
        std::printf("%s\n", progress_text(numbers).c_str());
    return 0;
}

int show_last_move(bool json) {
    std::ifstream file(kLastMovePath);
    const std::string text((std::istreambuf_iterator<char>(file)), {});
    const auto report = nlohmann::json::parse(text, nullptr, false);
    if (!report.is_object()) {
        std::printf(json ? "{}\n" : "no move is under way, and none is recorded\n");
        return 0;
    }
    if (json) {
        std::printf("%s\n", nlohmann::json({{"last_move", report}}).dump().c_str());
        return 0;
    }
    std::printf("no move is under way; the last one: %s\n", text_of(report, "verdict").c_str());
    for (const auto& [name, value] : report.items()) {
        if (value.is_object())
            for (const auto& [inner, amount] : value.items())
                std::printf("  %s.%s %s\n", name.c_str(), inner.c_str(), amount.dump().c_str());
        else if (name != "verdict")
            std::printf("  %s %s\n", name.c_str(), value.dump().c_str());
    }
    return 0;
}

// Parses options that only --help and `json` are; the exit code, or -1 to go on.
int parse(const char* name, const char* purpose, int argc, const char* const* argv, bool* json) {
    CLI::App app(purpose, std::string("selfmigrate ") + name);
    if (json != nullptr) app.add_flag("--json", *json, "as one JSON object");
    try {
        app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    return -1;
}

int order(const char* name, const char* key) {
    auto answer = give_order(kOrderSocketPath, nlohmann::json({{key, true}}).dump());
    if (!answer) {
        std::fprintf(
            stderr, "selfmigrate %s: %s\n", name,
            answer.error().remedy == Remedy::refused ? "no move is under way" : answer.error().text.c_str());
        return 1;
    }
    const auto message = nlohmann::json::parse(answer.value(), nullptr, false);
    if (const std::string error = text_of(message, "error"); !error.empty() || !message.is_object()) {
        std::fprintf(stderr, "selfmigrate %s: %s\n", name, error.c_str());
        return 1;
    }
    return 0;
}

}  // namespace

int status_command(int argc, const char* const* argv) {
    bool json = false;
    const int parsed =
        parse("status", "Says how far the move is, or how the last one went.", argc, argv, &json);
    if (parsed >= 0) return parsed;
    auto answer = give_order(kOrderSocketPath, R"({"status":true})");
    if (answer) return show_move(answer.value(), json);
    if (answer.error().remedy == Remedy::refused) return show_last_move(json);
    std::fprintf(stderr, "selfmigrate status: %s\n", answer.error().text.c_str());
    return 1;
}

int cancel_command(int argc, const char* const* argv) {
    const int parsed = parse("cancel", "Gives the move up; the guest runs on here.", argc, argv, nullptr);
    return parsed >= 0 ? parsed : order("cancel", "cancel");
}

int switch_now_command(int argc, const char* const* argv) {
    const int parsed =
        parse("switch-now", "Makes no further pass: stops the guest and moves it now.", argc, argv, nullptr);
    return parsed >= 0 ? parsed : order("switch-now", "switch_now");
}

}  // namespace smig

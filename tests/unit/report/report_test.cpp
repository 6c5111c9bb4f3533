// SPDX-License-Identifier: Apache-2.0
#include "agent/report/report.hpp"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

using namespace smig;

namespace {

MoveFacts facts() {
    MoveFacts facts;
    facts.kernel = "6.1.0";
    facts.vcpus = 2;
    facts.memory_mib = 512;
    facts.epoch[0] = 0xab;
    facts.started_ns = 1'000'000'000;
    facts.finished_ns = 9'000'000'000;
    facts.target = "b";
    return facts;
}

MoveOutcome moved() {
    MoveOutcome outcome;
    outcome.verdict = Verdict::moved;
    outcome.sent.class_pages[SMIG_CLASS_ANON] = 10;
    outcome.sent.class_pages[SMIG_CLASS_CACHE] = 20;
    outcome.sent.class_pages[SMIG_CLASS_KERNEL] = 30;
    outcome.sent.class_pages[SMIG_CLASS_FREE] = 999;
    outcome.sent.data_pages = 50;
    outcome.sent.zero_pages = 10;
    outcome.sent.passes = 3;
    outcome.sent.pass_data_pages = 500;
    outcome.sent.payload_bytes = 1000;
    outcome.sent.pass_payload_bytes = 20000;
    outcome.sent.send_pages = 55;
    outcome.sent.stop_reason = SMIG_STOP_NO_GAIN;
    outcome.sent.source_us[SMIG_STEP_FIND] = 2500;
    outcome.sent.find_kernel_us = 700;
    outcome.stop_begun_ns = 2'000'000'000;
    outcome.released_ns = 3'500'000'000;
    outcome.sent.source_us[SMIG_STEP_COPY] = 1500;
    outcome.drawn[0] = 0x0f;
    return outcome;
}

}  // namespace

TEST_CASE("the JSON of a move has every key that programs read") {
    const auto json = nlohmann::json::parse(report_json(facts(), moved()));
    for (const char* key : {"verdict",
                            "mode",
                            "kernel",
                            "vcpus",
                            "memory_mib",
                            "epoch",
                            "total_ms",
                            "stop_ms",
                            "bytes_payload",
                            "pages_in_use",
                            "pages_zero",
                            "pages_sent",
                            "stop_image_pages",
                            "pages_by_class",
                            "shadow_pages",
                            "placed_direct",
                            "placed_copied",
                            "stop_phases_ms",
                            "drawn",
                            "passes",
                            "pass_payload_bytes",
                            "stop_image_by_class",
                            "same_pages",
                            "missed_pages",
                            "verified_pages",
                            "stop_reason"})
        CHECK_MESSAGE(json.contains(key), key);
    for (const char* part : {"source", "send", "landing", "clone", "commit"})
        CHECK(json["stop_phases_ms"].contains(part));
    CHECK(json["verdict"] == "moved");
    CHECK(json["stop_ms"] == 1500.0);
    CHECK(json["total_ms"] == 2500.0);
    CHECK(json["pages_in_use"] == 60);
    CHECK(json["stop_phases_ms"]["source"]["copy"] == 1.5);
    CHECK(json["stop_phases_ms"]["source"]["find"] == 2.5);
    CHECK(json["stop_phases_ms"]["source"]["find_kernel"] == 0.7);
    CHECK(json["passes"] == 3);
    CHECK(json["pages_sent"] == 550);
    CHECK(json["bytes_payload"] == 21000);
    CHECK(json["stop_image_pages"] == 55);
    CHECK(json["stop_reason"] == "no-gain");
    CHECK(json["epoch"].get<std::string>().starts_with("ab00"));
    CHECK(json["drawn"].get<std::string>().starts_with("0f00"));
    CHECK_FALSE(json.contains("reason"));
}

TEST_CASE("a move that failed says why, in both reports") {
    MoveOutcome outcome;
    outcome.verdict = Verdict::rolled_back;
    put_text(outcome.reason, "the wire was cut");
    const auto json = nlohmann::json::parse(report_json(facts(), outcome));
    CHECK(json["verdict"] == "rolled-back");
    CHECK(json["reason"] == "the wire was cut");
    CHECK(report_text(facts(), outcome).find("the wire was cut") != std::string::npos);
    CHECK(report_text(facts(), outcome).find("The guest runs here") != std::string::npos);
}

TEST_CASE("a reason that is no UTF-8 or too long does no harm") {
    MoveOutcome outcome;
    put_text(outcome.reason, std::string(5000, '\xff'));
    CHECK(nlohmann::json::parse(report_json(facts(), outcome)).contains("reason"));
}

TEST_CASE("clocks that say nonsense give zero, not a huge number") {
    MoveOutcome outcome = moved();
    outcome.released_ns = 1;
    const auto json = nlohmann::json::parse(report_json(facts(), outcome));
    CHECK(json["stop_ms"] == 0.0);
    CHECK(json["total_ms"] == 0.0);
}

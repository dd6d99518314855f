// Labels that are fractions, missing, or of one class: what they allow is done, and the rest is said at the start.
#include "mixrec/core/error.h"
#include "mixrec/tests/trainer_setup.h"
#include "mixrec/train/check_trainable.h"

#include <algorithm>
#include <cmath>
#include <doctest/doctest.h>
#include <filesystem>

using namespace mixrec;
using namespace mixrec::test;

namespace {

namespace fs = std::filesystem;

struct Log {
  TemporaryFolder folder;
  std::string tasks = R"("click": "click")";
  std::string split = R"("by": "date", "test_days": 1, "validation_days": 1)";

  // Rows are "user,item,day,click,buy" without the header.
  std::string write(const std::string& rows) const {
    const std::string path = folder / "log";
    fs::remove_all(path);
    fs::create_directories(path);
    write_file(path + "/log.csv", "user,item,day,click,buy\n" + rows);
    write_file(path + "/schema.json",
               R"({"log": {"files": "log.csv", "user": "user", "item": "item",
                           "time": {"column": "day", "unit": "day"}}, "tasks": {)" +
                   tasks + R"(}, "features": {"item": ["item"]}, "split": {)" + split + "}}");
    return path;
  }

  ChildResult train(const std::string& rows, std::vector<std::string> more = {}) const {
    fs::remove_all(folder / "run");
    std::vector<std::string> arguments{
        "train", "--data", write(rows), "--out", folder / "run", "--set", "model.name=logistic_regression"};
    for (const std::string& one : more) arguments.insert(arguments.end(), {"--set", one});
    return run_mixrec(arguments, folder);
  }
};

bool holds(const std::string& text, const std::string& part) {
  INFO(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK_MESSAGE(found, "not found: ", part);
  return found;
}

const std::string kClicks =
    "u1,a,1,1,0\nu1,b,1,0,1\nu2,a,1,1,0\nu2,b,1,0,1\nu1,a,2,1,0\nu1,b,2,0,1\nu1,a,3,1,0\nu1,b,3,0,1\n";

// kClicks with a column replaced on one day.
std::string with(const std::string& rows, int day, size_t column, const std::vector<std::string>& cells) {
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < rows.size();) {
    const size_t end = rows.find('\n', at);
    std::vector<std::string> row;
    for (size_t begin = at; begin <= end;) {
      const size_t comma = std::min(rows.find(',', begin), end);
      row.push_back(rows.substr(begin, comma - begin));
      begin = comma + 1;
    }
    if (row[2] == std::to_string(day)) row[column] = cells[next++ % cells.size()];
    for (size_t c = 0; c < row.size(); ++c) out += (c ? "," : "") + row[c];
    out += "\n";
    at = end + 1;
  }
  return out;
}

}  // namespace

TEST_SUITE("labels") {
  TEST_CASE("fractional labels train and are evaluated; a threshold gives them an AUC") {
    Log log;
    const std::string rows = with(
        with(with(kClicks, 1, 3, {"0.9", "0.1", "0.8", "0.2"}), 2, 3, {"0.7", "0.3"}), 3, 3, {"0.8", "0.4"});
    const ChildResult plain = log.train(rows, {"train.select_by=log_loss"});
    CAPTURE(plain.err);
    REQUIRE(plain.code == 0);
    holds(plain.out, R"("test":{"click":{"auc":null,"uauc":null,"uauc_users":0,"log_loss":0.)");
    holds(plain.out, R"("mean_label":0.6)");
    holds(plain.err, "AUC -  UAUC - (0 users)  log loss 0.");
    holds(plain.err, "labels lie between 0 and 1 and the task has no positive_from");
    const ChildResult by_auc = log.train(rows);
    CHECK(by_auc.code == 1);
    holds(by_auc.err,
          "train.select_by is auc, which the validation rows do not determine: the label 'click' lies "
          "between 0 and 1 in 2 validation rows and the task has no positive_from");
    CHECK_FALSE(fs::exists(log.folder / "run"));

    log.tasks = R"("click": {"label": "click", "positive_from": 0.5})";
    const ChildResult ranked = log.train(rows, {"train.epochs=60", "table_optimizer.lr=0.1"});
    CAPTURE(ranked.err);
    REQUIRE(ranked.code == 0);
    holds(ranked.out, R"("test":{"click":{"auc":1.0,"uauc":1.0,"uauc_users":1,)");
    // One fraction in the last row is no surprise after the training.
    CHECK(log.train(with(kClicks, 3, 3, {"1", "0.5"})).code == 0);
    log.tasks = R"("click": {"label": "click", "positive_from": 1.5})";
    holds(log.train(rows).err, "tasks.click.positive_from: must be above 0 and at most 1, got 1.5");
  }

  TEST_CASE("fractional labels and thinned negatives are refused together") {
    Log log;
    log.tasks = R"("click": {"label": "click", "kept_negatives": 0.5})";
    const ChildResult result = log.train(with(kClicks, 1, 3, {"0.9", "0", "1", "0"}));
    CHECK(result.code == 1);
    holds(result.err, "the task 'click' has 1 labels between 0 and 1 and keeps a share 0.5 of its negatives");
  }

  TEST_CASE("test labels are looked at only when they are used") {
    const Log log;
    for (const char* label : {"0", "1"}) {
      const std::string rows = with(kClicks, 3, 3, {label});
      const ChildResult tested = log.train(rows);
      CHECK(tested.code == 1);
      holds(tested.err, concat_message("the label 'click' is ", label, " in all 2 test rows"));
      holds(tested.err, "train.test=false");
      CHECK_FALSE(fs::exists(log.folder / "run"));
      const ChildResult untested = log.train(rows, {"train.test=false"});
      CAPTURE(untested.err);
      CHECK(untested.code == 0);
      CHECK(untested.out.find("\"test\"") == std::string::npos);
    }
    Log masked;
    masked.tasks = R"("click": {"label": "click", "where": "day < 3"})";
    holds(masked.train(kClicks).err, "no test row has a label 'click' that counts");
    CHECK(masked.train(kClicks, {"train.test=false"}).code == 0);
    Log untested;
    untested.split = R"("by": "date", "test_from": "1999-01-01")";
    CHECK(untested.train(kClicks, {"train.test=false"}).code == 0);
    holds(untested.train(kClicks).err, "train.test=false trains without one");
  }

  TEST_CASE("validation labels are asked for what train.select_by needs, before the first step") {
    const Log log;
    const std::string one_class = with(kClicks, 2, 3, {"1"});
    holds(log.train(one_class).err,
          "train.select_by is auc, which the validation rows do not determine: all 2 validation rows are "
          "positive");
    const ChildResult by_loss = log.train(one_class, {"train.select_by=log_loss"});
    CAPTURE(by_loss.err);
    CHECK(by_loss.code == 0);
    holds(by_loss.out, R"("validation":{"click":{"auc":null)");

    std::string two_users = kClicks;  // each validation user has one class
    two_users.replace(two_users.find("u1,b,2"), 6, "u2,b,2");
    const ChildResult by_user = log.train(two_users, {"train.select_by=uauc"});
    CHECK(by_user.code == 1);
    holds(by_user.err, "no user has validation rows of both classes of 'click'");
    CHECK(by_user.err.find("step 1") == std::string::npos);
    CHECK_FALSE(fs::exists(log.folder / "run"));
    CHECK(log.train(two_users).code == 0);
    CHECK(log.train(kClicks, {"train.select_by=uauc"}).code == 0);

    // Lists of positives alone have an NDCG and an MRR, lists without one have neither.
    const std::string no_positive = with(kClicks, 2, 3, {"0"});
    for (const std::string list : {"ndcg@3", "mrr", "user_hr@1"}) {
      CAPTURE(list);
      const ChildResult judged = log.train(one_class, {"train.select_by=" + list, "train.max_steps=1"});
      CAPTURE(judged.err);
      CHECK(judged.code == 0);
      const ChildResult refused = log.train(no_positive, {"train.select_by=" + list});
      CHECK(refused.code == 1);
      holds(refused.err, "train.select_by is " + list + ", which the validation rows do not determine: ");
      CHECK(refused.err.find("step 1") == std::string::npos);
      CHECK_FALSE(fs::exists(log.folder / "run"));
    }
    for (const std::string by : {"rmse", "mae"})
      CHECK(log.train(no_positive, {"train.select_by=" + by}).code == 0);
    for (const std::string by : {"calibration", "normalised_entropy"})
      holds(log.train(no_positive, {"train.select_by=" + by}).err,
            "the label 'click' is 0 in all 2 validation rows");
    holds(log.train(two_users, {"train.select_by=request_auc"}).err,
          "no request has validation rows of both classes of 'click'");

    Log unlabelled;
    unlabelled.tasks = R"("click": {"label": "click", "where": "day != 2"})";
    holds(unlabelled.train(kClicks, {"train.select_by=log_loss"}).err,
          "no validation row has a label 'click' that counts");
  }

  TEST_CASE("a task that cannot be judged is left out of the mean, is null, and has a line") {
    Log log;
    log.tasks = R"("click": "click", "buy": "buy")";
    const std::string rows = with(with(kClicks, 2, 4, {"0"}), 3, 4, {"0"});
    const ChildResult result =
        log.train(rows, {"train.epochs=60", "table_optimizer.lr=0.1", "train.eval_every=1"});
    CAPTURE(result.err);
    REQUIRE(result.code == 0);
    holds(result.err,
          "'buy' is left out of the mean auc that chooses: none of 2 validation rows are positive for 'buy'");
    holds(result.err, "the test says little of 'buy': the label 'buy' is 0 in all 2 test rows");
    holds(result.out, R"("buy":{"auc":null,"uauc":null,"uauc_users":0,"log_loss":)");
    const std::string metrics = read_file(log.folder / "run/metrics.jsonl");
    holds(metrics, R"("score":1.0,)");
    for (const std::string& text :
         {result.out, result.err, metrics, read_file(log.folder / "run/result.json")})
      CHECK(text.find("nan") == std::string::npos);
    for (const auto& entry : fs::directory_iterator(log.folder / "run")) {
      if (!entry.path().filename().string().starts_with("events")) continue;
      const std::string events = read_file(entry.path());
      CHECK(events.find("validation/click/auc") != std::string::npos);
      CHECK(events.find("validation/buy/auc") == std::string::npos);
      CHECK(events.find("validation/buy/log_loss") != std::string::npos);
    }
    const ChildResult eval = run_mixrec({"eval", log.folder / "run"}, log.folder);
    CHECK(eval.code == 0);
    holds(eval.out, R"("buy":{"auc":null)");
    holds(eval.err, "(no row is positive)");
  }

  TEST_CASE("thinning that leaves no negative is the error of one class") {
    Log log;
    log.tasks = R"("click": {"label": "click", "kept_negatives": 1e-9})";
    const ChildResult result = log.train(kClicks);
    CHECK(result.code == 1);
    holds(result.err,
          "the label 'click' is 1 in all 2 train rows that are left: kept_negatives 1e-09 keeps none of "
          "its negatives; raise it");
    log.tasks = R"("click": "click", "buy": {"label": "buy == 1", "kept_negatives": 1e-12})";
    holds(log.train(kClicks).err, "the label 'buy' is 1 in all 2 train rows that are left");
    CHECK_FALSE(fs::exists(log.folder / "run"));
  }
}

// The bundled schemas: a folder is recognised by its files, the slice's names or the full public release's.
#include "mixrec/data/loader.h"
#include "mixrec/tests/data_files.h"
#include "mixrec/tests/skip.h"

#include <doctest/doctest.h>
#include <filesystem>
#include <string>

using namespace mixrec;
using mixrec::test::DataFolder;

namespace {

const std::string kConfigs = "examples/configs/kuairand/";

std::string log_row(int user, int video, int day, int month, int hour, bool click, const std::string& order) {
  const std::string date =
      "2022" + std::string(month == 4 ? "04" : "05") + (day < 10 ? "0" : "") + std::to_string(day);
  const int64_t days = (month == 4 ? 19083 : 19113) + day;  // 2022-04-01 is day 19083
  const int64_t time = ((days - 1) * 86'400 + hour * 3'600 + 60) * 1000;
  const std::string seen = click ? "1" : "0";
  const std::string tail = "," + std::to_string(hour * 100) + "," + std::to_string(time);
  return (order == "full" ? std::to_string(user) + "," + std::to_string(video) + "," + date + tail
                          : std::to_string(user) + "," + std::to_string(video) + "," + std::to_string(time) +
                                "," + date + "," + std::to_string(hour * 100)) +
         ",1," + seen + "," + seen + ",5000\n";
}

void write_tables(const DataFolder& folder, const std::string& users, const std::string& videos) {
  std::string text =
      "user_id,user_active_degree,is_lowactive_period,is_live_streamer,is_video_author,follow_user_num,"
      "follow_user_num_range,fans_user_num,fans_user_num_range,friend_user_num,friend_user_num_range,"
      "register_days,register_days_range";
  for (int f = 0; f < 18; ++f) text += ",onehot_feat" + std::to_string(f);
  for (int user = 0; user < 4; ++user) {
    text +=
        "\n" + std::to_string(user) + ",full_active,0,-124,1,5,\"(0,10]\",3,\"[1,10)\",2,\"[1,5)\",100,61-90";
    for (int f = 0; f < 18; ++f) text += f == 4 && user == 1 ? "," : "," + std::to_string(user % 2);
  }
  folder.write(users, text + "\n");
  text =
      "video_id,author_id,video_type,upload_dt,upload_type,visible_status,video_duration,server_width,server_"
      "height,"
      "music_id,music_type,tag\n";
  for (int video = 0; video < 6; ++video)
    text += std::to_string(video) + ",a" + std::to_string(video / 2) + ",NORMAL,2022-04-10,Kmovie,0," +
            (video == 0 ? "" : "9000.0") + ",720,1280,m,9.0,\"1,62\"\n";
  folder.write(videos, text);
}

}  // namespace

TEST_SUITE("data kuairand") {
  TEST_CASE("the full release's folder is recognised and ends its histories with the training period") {
    if (!std::filesystem::exists(kConfigs + "schema.json"))
      return test::skip("bundled schemas: run the tests from the project's folder");
    DataFolder folder;
    write_tables(folder, "user_features_pure.csv", "video_features_basic_pure.csv");
    const std::string header = "user_id,video_id,date,hourmin,time_ms,tab,is_click,long_view,duration_ms\n";
    std::string before = header, log = header;
    for (int user = 0; user < 4; ++user) {
      for (int day = 8; day <= 21; ++day)
        before += log_row(user, (user + day) % 6, day, 4, 12, day % 2, "full");
      for (int day = 22; day <= 30; ++day)
        log += log_row(user, (user + day) % 6, day, 4, 12, day % 2, "full");
      for (int day = 1; day <= 8; ++day)
        log += log_row(user, (user + day) % 6, day, 5, 12, day % 3 == 0, "full");
    }
    folder.write("log_standard_4_08_to_4_21_pure.csv", before);
    folder.write("log_standard_4_22_to_5_08_pure.csv", log);
    const Schema schema =
        find_schema(folder.path(), {kConfigs + "schema.json", kConfigs + "schema_full.json"});
    const Dataset data = Dataset::open(schema, folder.path());
    CHECK(data.stats(Split::test).first_day == "2022-05-07");
    CHECK(data.stats(Split::refit).first_day == "2022-04-22");
    CHECK(data.stats(Split::refit).last_day == "2022-05-06");
    Loader loader(data, Split::test, {.shuffle = Shuffle::none});
    const auto batch = loader.next();
    batch->validate(data.spec());
    // 14 days before the log and 15 of its training period, whichever test day the request is on.
    const auto offsets = batch->histories[0].offsets.to_vector<int64_t>();
    for (int64_t r = 0; r < batch->requests; ++r) CHECK(offsets[r + 1] - offsets[r] == 29);
  }

  TEST_CASE("the slice's folder is recognised; clicks are unknown where its history file has none") {
    if (!std::filesystem::exists(kConfigs + "schema.json"))
      return test::skip("bundled schemas: run the tests from the project's folder");
    DataFolder folder;
    write_tables(folder, "users.csv", "items.csv");
    std::string log = "user_id,video_id,time_ms,date,hourmin,tab,is_click,long_view,duration_ms\n";
    for (int day = 1; day <= 4; ++day)
      for (int user = 0; user < 4; ++user) log += log_row(user, day, day, 5, 12, user % 2, "slice");
    folder.write("impressions.csv", log + log.substr(log.find('\n') + 1));
    folder.write("history.csv",
                 "user_id,history_len,last_time_ms,watch_seq,long_view_flags,like_seq\n0,2,1,1 2,10,\n");
    const Dataset data = Dataset::open(
        find_schema(folder.path(), {kConfigs + "schema_full.json", kConfigs + "schema.json"}), folder.path());
    CHECK(data.manifest().duplicates == 16);
    Loader loader(data, Split::test, {.shuffle = Shuffle::none});
    const auto batch = loader.next();
    const auto& spec = data.spec().histories[0].features;
    for (size_t f = 0; f < spec.size(); ++f) {
      const auto ids = batch->histories[0].columns[f].ids.to_vector<int64_t>();
      // User 0's first request: two events from the file, then 1 and 2 May.
      if (spec[f].name == "long_view")
        CHECK(std::vector(ids.begin(), ids.begin() + 4) == std::vector<int64_t>{2, 1, 1, 1});
      if (spec[f].name == "click")
        CHECK(std::vector(ids.begin(), ids.begin() + 4) == std::vector<int64_t>{0, 0, 1, 1});
      if (spec[f].name == "gap")
        CHECK(std::vector(ids.begin(), ids.begin() + 4) == std::vector<int64_t>{0, 0, 18, 17});
    }
  }
}

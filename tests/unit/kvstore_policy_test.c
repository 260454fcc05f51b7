/* --ageing: what is read, what is refused with the word that is wrong, and at which age which step holds. */
#include "kvstore/ageing_policy.h"

#include "support/test.h"

static struct ageing_policy policy;
static struct status st;

#define HOUR_NS (3600ll * 1000000000)

TEST(policy_steps_follow_each_other)
{
    const struct ageing_class *class;

    CHECK_OK(ageing_policy_parse(&policy, "default=full:24h,thin/4:72h,8bit:14d,keys:90d;door=full:30s", &st),
             st);
    CHECK_EQ(policy.count, 2);
    class = ageing_policy_find(&policy, "");
    CHECK(class == ageing_policy_find(&policy, "default"));
    CHECK_EQ(class->count, 4);
    CHECK_EQ(class->steps[1].aged.thin, 4);
    CHECK_EQ(class->steps[2].aged.thin, 4); /* what was done stays done */
    CHECK_EQ(class->steps[2].aged.bits, 8);
    CHECK(!class->steps[2].aged.keys_only && class->steps[3].aged.keys_only);
    CHECK_EQ(ageing_class_step(class, 0, 0), 0);
    CHECK_EQ(ageing_class_step(class, 24 * HOUR_NS - 1, 0), 0);
    CHECK_EQ(ageing_class_step(class, 24 * HOUR_NS, 0), 1);
    CHECK_EQ(ageing_class_step(class, 24 * HOUR_NS, 1), 2);
    CHECK_EQ(ageing_class_step(class, 89 * 24 * HOUR_NS, 0), 3);
    CHECK_EQ(ageing_class_step(class, 89 * 24 * HOUR_NS, 1), 4);
    CHECK_EQ(ageing_class_step(class, 90 * 24 * HOUR_NS, 0), 4);
    CHECK_EQ(ageing_class_step(class, INT64_MAX, 1), 4);
    CHECK(ageing_policy_find(&policy, "dock") == NULL);
    CHECK_EQ(ageing_policy_shortest_ns(&policy), 30ll * 1000000000);
}

TEST(policy_that_is_not_given_keeps_everything)
{
    CHECK_OK(ageing_policy_parse(&policy, "", &st), st);
    CHECK_EQ(ageing_policy_find(&policy, "")->count, 0);
    CHECK(ageing_policy_find(&policy, "door") == NULL);
    CHECK_EQ(ageing_policy_shortest_ns(&policy), INT64_MAX);
    CHECK_OK(ageing_policy_parse(&policy, "door=8bit:1s;default=", &st), st);
    CHECK_EQ(ageing_policy_find(&policy, "default")->count, 0);
}

TEST(policy_refuses_what_it_does_not_understand)
{
    static const struct {
        const char *text, *why;
    } rows[] = {
        { "full:24h", "a class is" },
        { "=full:24h", "class" },
        { "Door=full:24h", "class" },
        { "a=full:24h;a=keys:1d", "there already" },
        { "a=full", "named with its end" },
        { "a=:24h", "a step is" },
        { "a=half:24h", "half: a step is" },
        { "a=full:24", "a time is" },
        { "a=full:h", "a time is" },
        { "a=full:0h", "a time is" },
        { "a=full:-1h", "a time is" },
        { "a=full:24w", "a time is" },
        { "a=full:99999999d", "a time is" },
        { "a=full:9999999d", "at most" },
        { "a=full:2h,keys:2h", "before the step before" },
        { "a=full:2h,keys:1h", "before the step before" },
        { "a=keys:1h,full:2h", "not full again" },
        { "a=8bit:1h,full:2h", "not full again" },
        { "a=thin/2:1h,full:2h", "not full again" },
        { "a=slim/4:1h", "a step is" },
        { "a=thin/9x:1h", "thin/N" },
        { "a=thin/2000000:1h", "thin/N" },
        { "a=thin/+4:1h", "thin/N" },
        { "a0123456789012345678901234567890123456789012345678901234567890123=full:1h", "a class is" },
        { "a=thin/1:1h", "thin/N" },
        { "a=thin/:1h", "thin/N" },
        { "a=thin/4x:1h", "thin/N" },
        { "a=thin/-4:1h", "thin/N" },
        { "a=thin/9999999:1h", "thin/N" },
        { "a=thin/4:1h,thin/6:2h", "a multiple" },
        { "a=full:1s,full:2s,full:3s,full:4s,full:5s,full:6s,full:7s,full:8s,full:9s", "more steps" },
        { "a=full:1h,,keys:2h", "named with its end" },
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if (ageing_policy_parse(&policy, rows[i].text, &st))
            test_fail(__FILE__, __LINE__, "'%s' was taken", rows[i].text);
        CHECK_EQ(st.code, STATUS_INVALID);
        CHECK_HAS(st.text, rows[i].why);
    }
}

/* Of frames that are one in four, one in two goes. */
TEST(policy_thins_what_is_left)
{
    CHECK_OK(ageing_policy_parse(&policy, "a=thin/4:1h,thin/8:2h,thin/8:3h", &st), st);
    CHECK_EQ(policy.classes[0].steps[1].aged.thin, 8);
    CHECK_EQ(policy.classes[0].steps[2].aged.thin, 8);
}

TEST(policy_has_a_bounded_number_of_classes)
{
    char text[64 * (AGEING_CLASSES_MAX + 1)];
    size_t len = 0;

    for (unsigned i = 0; i <= AGEING_CLASSES_MAX; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%sc%u=full:1h", i == 0 ? "" : ";", i);
    CHECK(!ageing_policy_parse(&policy, text, &st));
    CHECK_HAS(st.text, "more classes than there may be");
    *strrchr(text, ';') = '\0';
    CHECK_OK(ageing_policy_parse(&policy, text, &st), st);
    CHECK_EQ(policy.count, AGEING_CLASSES_MAX);
}

TEST_MAIN()

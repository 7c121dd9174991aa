/*
 * exports_rtl: strings, numbers, GUIDs, the calendar, bitmaps and security descriptors.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
#include "exports.h"
#include "more.h"

static VOID Strings(void)
{
    UNICODE_STRING wide, other;
    ANSI_STRING narrow;
    WCHAR room[16];
    ULONG number;
    GUID guid;

    RtlInitUnicodeString(&wide, L"Abc");
    GIVES(STATUS_SUCCESS, RtlUnicodeStringToAnsiString(&narrow, &wide, TRUE));
    CHECK(narrow.Length == 3 && narrow.MaximumLength == 4 && narrow.Buffer[1] == 'b' && narrow.Buffer[3] == 0);
    narrow.MaximumLength = 3;
    GIVES(STATUS_BUFFER_OVERFLOW, RtlUnicodeStringToAnsiString(&narrow, &wide, FALSE));
    RtlFreeAnsiString(&narrow);
    CHECK(narrow.Buffer == NULL);
    GIVES(STATUS_SUCCESS, RtlUpcaseUnicodeString(&other, &wide, TRUE));
    CHECK(Same(&other, L"ABC"));
    RtlFreeUnicodeString(&other);

    other.Buffer = room;
    other.MaximumLength = sizeof room;
    GIVES(STATUS_SUCCESS, RtlIntegerToUnicodeString(0xbeef, 16, &other));
    CHECK(Same(&other, L"BEEF"));
    GIVES(STATUS_SUCCESS, RtlIntegerToUnicodeString(1234, 0, &other));
    CHECK(Same(&other, L"1234"));
    GIVES(STATUS_INVALID_PARAMETER, RtlIntegerToUnicodeString(1, 7, &other));
    other.MaximumLength = 6;
    GIVES(STATUS_BUFFER_OVERFLOW, RtlIntegerToUnicodeString(1234, 10, &other));
    RtlInitUnicodeString(&wide, L" 0x1f");
    GIVES(STATUS_SUCCESS, RtlUnicodeStringToInteger(&wide, 0, &number));
    CHECK(number == 31);
    GIVES(STATUS_INVALID_PARAMETER, RtlUnicodeStringToInteger(&wide, 3, &number));

    RtlInitUnicodeString(&wide, L"{6C1E7B3A-0D34-4F6E-9A55-6D1B1F0A7E01}");
    GIVES(STATUS_SUCCESS, RtlGUIDFromString(&wide, &guid));
    CHECK(RtlCompareMemory(&guid, &ExportsInterface, sizeof guid) == sizeof guid);
    GIVES(STATUS_SUCCESS, RtlStringFromGUID(&guid, &other));
    CHECK(RtlEqualUnicodeString(&other, &wide, FALSE));
    RtlFreeUnicodeString(&other);
    wide.Length -= 2;
    GIVES(STATUS_INVALID_PARAMETER, RtlGUIDFromString(&wide, &guid));
}

static VOID Calendar(void)
{
    LARGE_INTEGER time, back;
    TIME_FIELDS fields;
    ULONG seconds;

    RtlSecondsSince1970ToTime(1704164645, &time); /* 2024-01-02 03:04:05, a Tuesday */
    RtlTimeToTimeFields(&time, &fields);
    CHECK(fields.Year == 2024 && fields.Month == 1 && fields.Day == 2 && fields.Weekday == 2);
    CHECK(fields.Hour == 3 && fields.Minute == 4 && fields.Second == 5 && fields.Milliseconds == 0);
    CHECK(RtlTimeFieldsToTime(&fields, &back) && back.QuadPart == time.QuadPart);
    CHECK(RtlTimeToSecondsSince1970(&time, &seconds) && seconds == 1704164645);
    fields.Month = 2;
    fields.Day = 30;
    CHECK(!RtlTimeFieldsToTime(&fields, &back));
}

static VOID Bitmaps(void)
{
    ULONG words[3] = {0, 0, 0}, start;
    RTL_BITMAP map;

    RtlInitializeBitMap(&map, words, 70);
    RtlSetBits(&map, 30, 5);
    CHECK(words[0] == 0xc0000000 && words[1] == 7);
    CHECK(RtlNumberOfSetBits(&map) == 5 && RtlNumberOfClearBits(&map) == 65);
    CHECK(RtlAreBitsSet(&map, 30, 5) && !RtlAreBitsSet(&map, 30, 6) && RtlAreBitsClear(&map, 35, 35));
    CHECK(RtlFindClearBits(&map, 31, 0) == 35 && RtlFindSetBits(&map, 5, 0) == 30);
    CHECK(RtlFindClearBitsAndSet(&map, 4, 0) == 0 && words[0] == 0xc000000f);
    CHECK(RtlFindClearBits(&map, 36, 0) == 0xffffffff);
    CHECK(RtlFindFirstRunClear(&map, &start) == 26 && start == 4);
    CHECK(RtlTestBit(&map, 3) && !RtlTestBit(&map, 4));
    RtlClearBit(&map, 3);
    CHECK(!RtlTestBit(&map, 3));
    RtlClearAllBits(&map);
    CHECK(words[0] == 0 && words[1] == 0 && words[2] == 0);
}

static VOID Security(void)
{
    static const UCHAR world[6] = {0, 0, 0, 0, 0, 1};
    ULONG sidBuffer[4], aclBuffer[16], relative[32], length = 4;
    PVOID sid = sidBuffer;
    PACL acl = (PACL)aclBuffer, got = NULL;
    ULONG_PTR descriptor[5];
    BOOLEAN present = FALSE, defaulted = TRUE;

    GIVES(STATUS_SUCCESS, RtlInitializeSid(sid, world, 1));
    *RtlSubAuthoritySid(sid, 0) = 0;
    CHECK(RtlLengthSid(sid) == 12 && RtlLengthRequiredSid(2) == 16 && RtlValidSid(sid));
    GIVES(STATUS_SUCCESS, RtlCreateAcl(acl, 28, ACL_REVISION));
    GIVES(STATUS_SUCCESS, RtlAddAccessAllowedAce(acl, ACL_REVISION, GENERIC_ALL, sid));
    CHECK(acl->AceCount == 1);
    GIVES(STATUS_ALLOTTED_SPACE_EXCEEDED, RtlAddAccessAllowedAce(acl, ACL_REVISION, GENERIC_ALL, sid));
    GIVES(STATUS_UNKNOWN_REVISION, RtlCreateSecurityDescriptor(descriptor, 7));
    GIVES(STATUS_SUCCESS, RtlCreateSecurityDescriptor(descriptor, 1));
    GIVES(STATUS_SUCCESS, RtlSetDaclSecurityDescriptor(descriptor, TRUE, acl, FALSE));
    GIVES(STATUS_SUCCESS, RtlSetOwnerSecurityDescriptor(descriptor, sid, FALSE));
    CHECK(RtlValidSecurityDescriptor(descriptor) && RtlLengthSecurityDescriptor(descriptor) == 40 + 12 + 28);
    GIVES(STATUS_BUFFER_TOO_SMALL, RtlAbsoluteToSelfRelativeSD(descriptor, relative, &length));
    CHECK(length == 20 + 12 + 28);
    length = sizeof relative;
    GIVES(STATUS_SUCCESS, RtlAbsoluteToSelfRelativeSD(descriptor, relative, &length));
    GIVES(STATUS_SUCCESS, RtlGetDaclSecurityDescriptor(relative, &present, &got, &defaulted));
    CHECK(present && !defaulted && got != NULL && got->AclSize == 28 && (PULONG)got == relative + 8);
    CHECK(RtlValidSecurityDescriptor(relative) && RtlLengthSecurityDescriptor(relative) == 60);
}

static VOID Run(PFDO Fdo, PCM_RESOURCE_LIST Translated)
{
    UNREFERENCED_PARAMETER(Fdo);
    UNREFERENCED_PARAMETER(Translated);
    Strings();
    Calendar();
    Bitmaps();
    Security();
}

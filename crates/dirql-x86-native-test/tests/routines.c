/* Whole routines as compilers make them. Each works on a buffer of `n` bytes and returns a number; nothing outside is
   called, so the object code runs wherever it is put. */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef unsigned __int128 u128;
typedef __int128 i128;
#define ROUTINE __attribute__((visibility("default")))

/* What compilers call by themselves. */
void *memcpy(void *to, const void *from, u64 n) {
    u8 *d = to;
    const u8 *s = from;
    while (n--) *d++ = *s++;
    return to;
}
void *memset(void *to, int v, u64 n) {
    u8 *d = to;
    while (n--) *d++ = (u8)v;
    return to;
}
void *memmove(void *to, const void *from, u64 n) {
    u8 *d = to;
    const u8 *s = from;
    if (d < s) while (n--) *d++ = *s++;
    else while (n--) d[n] = s[n];
    return to;
}

ROUTINE u64 crc(u8 *p, u64 n, u64 seed) {
    u32 c = ~(u32)seed;
    for (u64 i = 0; i < n; i++) {
        c ^= p[i];
        for (int k = 0; k < 8; k++) c = c >> 1 ^ (0xedb88320 & -(c & 1));
    }
    return ~c;
}

ROUTINE u64 fnv(u8 *p, u64 n, u64 seed) {
    u64 h = seed ^ 0xcbf29ce484222325;
    for (u64 i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3;
    return h;
}

static u32 turn(u32 v, int by) { return v >> by | v << (32 - by); }

/* The compression of SHA-256 with constants from a generator, not the standard's. */
ROUTINE u64 sha(u8 *p, u64 n, u64 seed) {
    u32 h[8], w[64], k = (u32)seed | 1;
    for (int i = 0; i < 8; i++) h[i] = k = k * 1664525 + 1013904223;
    for (u64 at = 0; at + 64 <= n; at += 64) {
        for (int i = 0; i < 16; i++) {
            const u8 *b = p + at + 4 * i;
            w[i] = (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3];
        }
        for (int i = 16; i < 64; i++) {
            u32 a = w[i - 15], b = w[i - 2];
            w[i] = w[i - 16] + w[i - 7] + (turn(a, 7) ^ turn(a, 18) ^ a >> 3) + (turn(b, 17) ^ turn(b, 19) ^ b >> 10);
        }
        u32 v[8];
        memcpy(v, h, sizeof v);
        for (int i = 0; i < 64; i++) {
            u32 e = v[4], a = v[0];
            u32 t = v[7] + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & v[5]) ^ (~e & v[6])) + w[i] + (u32)i * 0x9e3779b9;
            u32 s = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
            memmove(v + 1, v, 28);
            v[4] += t;
            v[0] = t + s;
        }
        for (int i = 0; i < 8; i++) h[i] += v[i];
    }
    memcpy(p, h, sizeof h);
    return (u64)h[0] << 32 | h[7];
}

ROUTINE u64 moves(u8 *p, u64 n, u64 seed) {
    for (u64 i = 0; i < 64; i++) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        u64 len = (seed >> 40) % (n / 2), from = (seed >> 20) % (n / 2), to = (seed >> 3) % (n / 2);
        switch (i & 3) {
        case 0: memmove(p + to, p + from, len); break;
        case 1: {
            u8 *d = p + to, *s = p + from;
            __asm__ volatile("rep movsb" : "+D"(d), "+S"(s), "+c"(len) : : "memory");
            break;
        }
        case 2: {
            u64 words = len / 8;
            u8 *d = p + to;
            __asm__ volatile("rep stosq" : "+D"(d), "+c"(words) : "a"(seed) : "memory");
            break;
        }
        default: memset(p + to, (int)seed, len);
        }
    }
    return seed;
}

static u8 *number(u8 *at, u64 v, u32 base, int width, u8 fill) {
    u8 digits[64];
    int n = 0;
    do {
        digits[n++] = "0123456789abcdef"[v % base];
        v /= base;
    } while (v);
    while (width-- > n) *at++ = fill;
    while (n) *at++ = digits[--n];
    return at;
}

ROUTINE u64 format(u8 *p, u64 n, u64 seed) {
    u8 *at = p;
    const char *text = "%u %x %08x %d %c%% %10u %o|";
    while (at + 256 < p + n) {
        for (const char *f = text; *f; f++) {
            if (*f != '%') {
                *at++ = (u8)*f;
                continue;
            }
            u8 fill = ' ';
            int width = 0;
            if (*++f == '0') fill = '0';
            while (*f >= '0' && *f <= '9') width = width * 10 + *f++ - '0';
            seed = seed * 6364136223846793005 + 1;
            u64 v = seed >> (seed & 63);
            switch (*f) {
            case 'u': at = number(at, v, 10, width, fill); break;
            case 'x': at = number(at, v, 16, width, fill); break;
            case 'o': at = number(at, v, 8, width, fill); break;
            case 'd':
                if ((long long)v < 0) *at++ = '-', v = -v;
                at = number(at, v, 10, width, fill);
                break;
            case 'c': *at++ = (u8)(32 + v % 90); break;
            default: *at++ = (u8)*f;
            }
        }
    }
    return (u64)(at - p);
}

ROUTINE u64 wide(u8 *p, u64 n, u64 seed) {
    u128 a = (u128)seed << 64 | ~seed, sum = 0;
    u128 *out = (u128 *)p;
    for (u64 i = 0; i < n / 16; i++) {
        u128 b = out[i] | 1;
        u128 shift = b >> (i & 127);
        a = a * b + shift;
        sum += a / (shift | 1) + a % b;
        i128 s = (i128)a / (i128)(b >> 70 | 1);
        out[i] = sum ^ (u128)(s >> (i & 31));
    }
    return (u64)(sum >> 64) ^ (u64)sum;
}

static double root(double v) {
    __asm__("sqrtsd %0, %0" : "+x"(v));
    return v;
}

ROUTINE u64 floats(u8 *p, u64 n, u64 seed) {
    double *d = (double *)p;
    u64 count = n / 8, big = 0;
    for (u64 i = 0; i < count; i++) {
        seed = seed * 6364136223846793005 + 1442695040888963407;
        d[i] = (double)(long long)seed / 3.0;
    }
    for (u64 i = 1; i + 1 < count; i++) {
        double x = d[i - 1], y = d[i + 1];
        float f = (float)x;
        d[i] = root(x < 0 ? -x : x) * 0.5 + y / (1.0 + f * f) - (double)(int)(i * 1.25f);
        if (d[i] > y) big++;
    }
    double sum = 0, term = 1;
    for (int i = 1; i < 40; i++) sum += term, term /= i;
    d[0] = sum;
    float *f = (float *)(p + n / 2);
    for (u64 i = 0; i < count / 2; i++) f[i] = (float)i * 1.1f + (float)(u32)(seed >> (i & 31));
    return big;
}

ROUTINE u64 sort(u8 *p, u64 n, u64 seed) {
    u32 *v = (u32 *)p;
    u64 count = n / 64;
    for (u64 i = 1; i < count; i++) {
        u32 x = v[i] ^ (u32)seed;
        u64 k = i;
        while (k && v[k - 1] > x) v[k] = v[k - 1], k--;
        v[k] = x;
    }
    u64 bits = 0;
    for (u64 i = 0; i < count; i++) bits = bits * 3 + (u64)__builtin_popcount(v[i]) + (u64)__builtin_ctz(v[i] | 256);
    return bits;
}

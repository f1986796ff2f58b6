// Characters that tables of an older Unicode do not have.
#pragma once

namespace plait::unicode {

// Whether `c` was added in Unicode 9.0 (10.0) or later, up to 15.0.
bool since_unicode_9(char32_t c);
bool since_unicode_10(char32_t c);

}  // namespace plait::unicode

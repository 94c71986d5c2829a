export const HASHED = 'correct horse battery staple'
/** Longer than the 72 bytes that bcrypt sees. */
export const LONG = `${'ß'.repeat(20)}${'x'.repeat(40)}tail that bcrypt does not see`

/** Hashes of `HASHED`, of `LONG` where it says so, as other programs made them. */
export const FOREIGN_HASHES: Readonly<Record<string, string>> = {
  'passlib bcrypt': '$2b$04$5NwzFFHSlPQd3KRWvZKKv.O.pkMnz90dFSiEBV6cVDrd86RlF5qFC',
  'passlib bcrypt 2y': '$2y$04$Rep0SoJWAFn8WwjngAcL5uJqD8lzJphRqo8Ko4ur9wXt9E0uujtSG',
  'passlib bcrypt 2a': '$2a$04$GwOCzuBOREvaV4w7b23p8OiD.xQ5WR0ruy6do0dBo5LFcvsrCSl9.',
  'passlib bcrypt of LONG': '$2b$04$YZ8JaUxBkznGFg6aIVDdoezCH98pzpCiCW9/S5ZwiALBml3sQ9V/6',
  'passlib bcrypt_sha256':
    '$bcrypt-sha256$v=2,t=2b,r=4$igN0BiiDOY0ZdeoZWyQfn.$Frjyhn8UsSVcA2tmdFX8zMKn97d6uoq',
  'passlib bcrypt_sha256 v1': '$bcrypt-sha256$2b,4$V3XeUK1g48Ny7cNvQAJ8u.$ibnRcqDVgXdsPDrzRTnJdc6bXblNPA2',
  'passlib scrypt': '$scrypt$ln=8,r=8,p=1$R2htrbV2TomxtlYK4TyHMA$mPX78C/7GvNRIPdtSOMBn2Ln886x+ysxtVxH0Id3erQ',
  'passlib pbkdf2_sha256':
    '$pbkdf2-sha256$1000$qPW.t/ae815rzbkXgrDWGg$R4oT91v1teZM1cwjvLk3pBaCua9R7QyzfLvtixkxJNY',
  'passlib pbkdf2_sha512':
    '$pbkdf2-sha512$1000$dC7lnNOak3KOMQYgxLh3Lg$wgIigAfQJGXPoJVPUNtmSV9md7KaOtArV2v5HcU3ZJnhdrMuWsSHovCvjzfoHrttHvU6ug3Jegd1lANyfpfG0Q',
  'passlib pbkdf2_sha1': '$pbkdf2$1000$ZYwRgjBmrHXufQ9hDEHI.Q$4oUHLKr.WOnC5lVJFrCnzh0sH08',
  'werkzeug scrypt':
    'scrypt:1024:8:1$aBcDeFgHiJkLmNoP$2d7d3dc2e2be613538a503bb033b6087f354273801386de2844db6f936c259f8d56a4c5aeb1de9c475a98a1051150b5a745a6f89bc552be6038b2d0088799e42',
  'werkzeug pbkdf2':
    'pbkdf2:sha256:1000$xrNYfPrNF9TbnoXI$e0fe20294c77bdb1fd75daf0dcbb8abb9777631e41b55adcb2707ce095692afb',
  'django pbkdf2': 'pbkdf2_sha256$1000$seasalt123456$XiYOYYvI7MUoC1luBcIVTWxEr+5qoDIcsieG420mvkc=',
  'django pbkdf2_sha1': 'pbkdf2_sha1$1000$seasalt123456$7zklWd8zfiYeEuJHdeAEfvDNuXk=',
  'django scrypt':
    'scrypt$1024$seasalt123456$8$5$RdFQQfRWiF/Kw5BtmRK4t8iDxCF/6xhpiG3manyKtkkLDG8sWXGiTEIVVX2hrDclP7BFYGCTuLybEVfIWcg6Og==',
  'django bcrypt': 'bcrypt$$2b$04$y5SU/qJR4Fs7oHEKMtKGZufAxQaikxBzilpDsFHWn4WjVWoGapdBW',
  'django bcrypt_sha256': 'bcrypt_sha256$$2b$04$OIQhQ6IDGw7TrIY1mEmX8us7vsRk3jVc6cZMfP8vMQv5DU25PP9dW',
  'django argon2': 'argon2$argon2id$v=19$m=64,t=1,p=1$S2o3Qnp2RXgwMUZLOWhxSDY3RGI4Yg$lmIRs5s+L8Ni9f5zaYrXCw',
  argon2i: '$argon2i$v=19$m=64,t=1,p=2$MDEyMzQ1Njc4OWFiY2RlZg$onpPVO/whtistOUBx5EGFEf5VAfly9mIhrDzQsE+u3M',
  'argon2d v16':
    '$argon2d$v=16$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$K54BpmHpwIniyWLnUr5GZAmYrCRDLKA2A/YlE3PhT+Q',
}

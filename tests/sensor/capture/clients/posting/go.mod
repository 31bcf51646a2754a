module modelmeter.test/posting

go 1.17
